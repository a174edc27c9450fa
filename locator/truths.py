"""Records of `registrations` as the locator reads them."""

from events.registrations import Claimed, RegistrationEvent
from events.wire import CLAIM, Decoder, Poisoned, int_header
from locator.decider import Truth
from runtime.log.port import Record

_decode: Decoder[RegistrationEvent] = Decoder(RegistrationEvent)


def truth_of(record: Record) -> Truth:
    """The record decoded, with the claim it was written under; raises Poisoned."""
    event = _decode(record.value)
    if isinstance(event, Claimed):
        return Truth(record.offset, record.offset, event)
    claim = int_header(record.headers, CLAIM)
    if claim >= record.offset:
        # Taken as it is, it would void every later truth of the partition.
        raise Poisoned("written under a claim that did not exist yet")
    return Truth(record.offset, claim, event)
