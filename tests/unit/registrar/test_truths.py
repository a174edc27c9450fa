"""What the registrar writes is the event, although it encodes a state but once."""

from events.commands import ReplyTo
from events.registrations import AorState, BindingsRecorded, Change, Kind
from events.wire import Decoder, encode
from registrar.truths import truth

decode: Decoder[BindingsRecorded] = Decoder(BindingsRecorded)


def test_a_truth_has_every_field_of_its_event() -> None:
    event = BindingsRecorded(
        id="1",
        aor="alice@example.test",
        by="operator:olga",
        changes=(Change(Kind.DEACTIVATED, 7, "sip:alice@192.0.2.4"),),
        state=AorState(at=1_900_000_000_000),
        reply=ReplyTo("edge-1", "b00t", 1),
        forgotten=True,
        closes=("<sip:token@edges;lr>",),
    )
    assert decode(truth(event, encode(event.state), 0, 1, 2).value) == event
