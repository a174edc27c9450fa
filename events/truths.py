"""What every reader of `registrations` knows of a record before it reads its value: is it a truth, under which claim.

There are four kinds of record, and every version tells them apart in the same way:

- one that no registrar has written: without a type, or under no possible claim. It means nothing to anybody: it is
  counted, put aside for people, and the readers go on (CHECKLIST C18).
- one of an older claim than the highest before it: void, whatever it says, also what nobody here can read (E16).
- a truth that this version can read.
- a truth that it cannot read: of a type or a kind of change that is not known here, or with a value that does not
  fit. A newer registrar wrote it. It is never skipped: who goes on without it tells phones what is not so. The reader
  stops that partition with an alarm, until a version that knows it comes (E19).
"""

import msgspec

from events.wire import CLAIM, Headers, Poisoned, header, int_header

RECORDED = "ramal.BindingsRecorded"
CLAIMED = "ramal.Claimed"
STATE = "ramal.AorState"

_RECORDED = RECORDED.encode()


class _Typed(msgspec.Struct):
    type: str


_typed = msgspec.json.Decoder(_Typed)


def claim_of(offset: int, headers: Headers, value: bytes | None) -> int:
    """The claim under which a registrar of any version wrote this record; a claim's own is its offset.

    Raises Poisoned: none has written it.
    """
    kind = header(headers, "ce_type")
    if header(headers, CLAIM) is None:
        if kind is None or kind == _RECORDED:
            raise Poisoned("it has no claim")
        return offset  # a claim; perhaps another type of one that is not known here
    claim = int_header(headers, CLAIM)
    if claim >= offset:
        # Taken as it is, it would void every later truth of the partition.
        raise Poisoned("written under a claim that did not exist yet")
    if kind is None:
        _check_type(value)
    return claim


def check_state(headers: Headers) -> None:
    """Raises Poisoned for a snapshot on `bindings` that says to be of a type which is not known here."""
    kind = header(headers, "ce_type")
    if kind is not None and kind != STATE.encode():
        raise Poisoned(f"a state of type {kind.decode(errors='replace')}")


def _check_type(value: bytes | None) -> None:
    """Raises Poisoned."""
    try:
        _typed.decode(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Poisoned("it names no type") from error
