"""Records of `registrations` as the locator reads them."""

from collections.abc import Sequence
from typing import NamedTuple

from events.registrations import Claimed, RegistrationEvent
from events.truths import claim_of
from events.wire import Decoder, Poisoned
from locator.decider import Truth
from runtime.log.port import Record

_decode: Decoder[RegistrationEvent] = Decoder(RegistrationEvent)


class Reading(NamedTuple):
    """Records of one partition, up to the first truth that this version cannot read."""

    truths: list[Truth]
    strangers: list[tuple[Record, str]]
    """Records of no registrar, and why each is none."""
    void: int
    """Records of an older claim that this version could not read in any case."""
    unknown: tuple[Record, str] | None
    """The truth that cannot be read, and why; what stands behind it was not looked at."""


def truth_of(record: Record) -> Truth:
    """The record decoded, with the claim it was written under; raises Poisoned."""
    claim = claim_of(record.offset, record.headers, record.value)
    event = _decode(record.value)
    return Truth(record.offset, record.offset if isinstance(event, Claimed) else claim, event)


def read(records: Sequence[Record], claim: int) -> Reading:
    """Reads records behind the claim in force; see `events.truths` for what becomes of which."""
    truths: list[Truth] = []
    strangers: list[tuple[Record, str]] = []
    void = 0
    for record in records:
        try:
            truths.append(truth_of(record))
        except Poisoned as error:
            try:
                own = claim_of(record.offset, record.headers, record.value)
            except Poisoned:
                strangers.append((record, str(error)))
                continue
            if own >= max([claim, *(truth.claim for truth in truths)]):
                return Reading(truths, strangers, void, (record, str(error)))
            void += 1
    return Reading(truths, strangers, void, None)
