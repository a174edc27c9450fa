"""The bytes of `registrations` and `bindings`, as the registrar writes and reads them.

The state of an AOR is encoded once per decision: the same bytes stand in the truth, in memory and in
the snapshot. Hence the shapes here, which are those of `events.registrations` with the state as raw JSON.
"""

from hashlib import blake2b

import msgspec

from events.commands import ReplyTo
from events.registrations import WATERMARK_KEY, AorState, BindingsRecorded, Change, Kind, Watermark
from events.topics import BINDINGS, REGISTRATIONS
from events.truths import CLAIMED, RECORDED, STATE
from events.truths import claim_of as claim_of_record
from events.wire import CLAIM, COMMAND_OFFSET, Decoder, cloud_event, encode, header
from runtime.log.port import Append, Headers, Record

SOURCE = "registrar"

decode_state: Decoder[AorState] = Decoder(AorState)
decode_watermark: Decoder[Watermark] = Decoder(Watermark)

_WATERMARK_KEY = WATERMARK_KEY.encode()
_VERSION, _, *_REST = cloud_event(RECORDED, SOURCE, "")


class _Recorded(msgspec.Struct, frozen=True, omit_defaults=True, tag=RECORDED, tag_field="type"):
    """`BindingsRecorded`, field for field, with the state as it is already encoded."""

    id: str
    aor: str
    by: str
    changes: tuple[Change, ...]
    state: msgspec.Raw
    reply: ReplyTo | None = None
    forgotten: bool = False
    closes: tuple[str, ...] = ()


class _ReplayedChange(msgspec.Struct, frozen=True):
    """Only whether its kind is known: one that is not may mean what the state alone does not say."""

    kind: Kind


class _Replayed(msgspec.Struct, frozen=True, tag=RECORDED, tag_field="type"):
    """What a restore reads of a `BindingsRecorded`."""

    aor: str
    changes: tuple[_ReplayedChange, ...]
    state: msgspec.Raw


decode_replayed: Decoder[_Replayed] = Decoder(_Replayed)


def truth(event: BindingsRecorded, state: bytes, partition: int, command: int, claim: int) -> Append:
    """The record of an event: `state` is its state encoded, `command` the offset that it answers."""
    raw = msgspec.Raw(state)
    value = _Recorded(event.id, event.aor, event.by, event.changes, raw, event.reply, event.forgotten, event.closes)
    return Append(
        REGISTRATIONS,
        partition,
        event.aor.encode(),
        encode(value),
        (
            _VERSION,
            ("ce_id", event.id.encode()),
            *_REST,
            (COMMAND_OFFSET, b"%d" % command),
            (CLAIM, b"%d" % claim),
        ),
    )


def snapshot(partition: int, aor: str, state: bytes | None) -> Append:
    """The last state of an AOR; None: nothing of it matters any more."""
    return Append(BINDINGS, partition, aor.encode(), state, cloud_event(STATE, SOURCE, _id(aor, state or b"")))


def watermark(partition: int, mark: Watermark) -> Append:
    """The last record of a whole set of snapshots."""
    value = encode(mark)
    headers = cloud_event("ramal.Watermark", SOURCE, _id(str(partition), value))
    return Append(BINDINGS, partition, _WATERMARK_KEY, value, headers)


def _id(whose: str, value: bytes) -> str:
    """Equal ids are equal records, as CloudEvents has it: readers may drop the second."""
    return blake2b(whose.encode("utf-8", "surrogateescape") + b"\0" + value, digest_size=16).hexdigest()


def is_watermark(record: Record) -> bool:
    """Whether a record of `bindings` is the watermark."""
    return record.key == _WATERMARK_KEY


def claim_of(record: Record) -> int:
    """The claim under which a record of `registrations` was written. Raises Poisoned: no registrar has written it."""
    return claim_of_record(record.offset, record.headers, record.value)


def is_claim(headers: Headers) -> bool:
    """Whether a record of `registrations` is a `Claimed`."""
    return header(headers, "ce_type") == CLAIMED.encode()
