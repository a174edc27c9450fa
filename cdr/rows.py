"""The rows that a call has in the tables; pure.

`acc` and `missed_calls` are as OpenSIPS 3.x writes them (modules/acc/acc.c): of an answered call `time` is that of
the answer, `created` that of the INVITE, `setuptime` the whole seconds between them, `duration` the seconds from the
answer to the BYE, rounded up; of a call that failed `time` is that of the INVITE. All are UTC.
"""

import datetime
from functools import lru_cache
from typing import NamedTuple

from cdr.decider import Limits, StoredCall, bye, deadline, is_open, record
from cdr.state import Call, to_text
from events.cdrs import CallRecord

_LAST_SECOND = 253_402_300_799
"""Of the year 9999: DATETIME ends there."""
_UNSIGNED = 2**32 - 1
_REASON = 32
_EDGES = 1040
_CODECS = 528
_new = tuple.__new__
"""Twice as fast as a named tuple's own."""


class Acc(NamedTuple):
    """One row of `acc`, in the order of its fields."""

    id: int
    method: str
    from_tag: str
    to_tag: str
    callid: str
    sip_code: str
    sip_reason: str
    time: str
    duration: int
    ms_duration: int
    setuptime: int
    created: str
    caller_tag: str
    cseq: int
    src_user: str
    src_domain: str
    src_ip: str
    dst_ouser: str
    dst_user: str
    dst_domain: str
    time_ms: int
    partition_no: int


class Missed(NamedTuple):
    """One row of `missed_calls`."""

    id: int
    method: str
    from_tag: str
    to_tag: str
    callid: str
    sip_code: str
    sip_reason: str
    time: str
    setuptime: int
    created: str
    cseq: int
    src_user: str
    src_domain: str
    src_ip: str
    dst_ouser: str
    dst_user: str
    dst_domain: str
    time_ms: int
    partition_no: int


class Cdr(NamedTuple):
    """One row of `cdrs`, but for `published`."""

    id: int
    call_id: str
    from_tag: str
    cseq: int
    to_tag: str
    outcome: str
    caller: str
    callee: str
    ours: int
    dialled: str
    answered_by: str
    attempted_ms: int
    rang_ms: int | None
    answered_ms: int | None
    ended_ms: int | None
    setup_ms: int
    talk_ms: int
    code: int
    phrase: str
    reason: str
    cause: int
    hung_up: str
    missed: int
    edges: str
    source: str
    caller_transport: str
    callee_transport: str
    caller_agent: str
    callee_agent: str
    codecs: str
    gateway: str
    branches: int
    transferred_to: str
    session_expires: int
    incomplete: int
    estimated: int
    partition_no: int
    last_offset: int
    state: str


class Open(NamedTuple):
    """One row of `open_calls`."""

    id: int
    call_id: str
    from_tag: str
    cseq: int
    caller: str
    callee: str
    dialled: str
    progress: str
    """`attempted`, `ringing` or `answered`."""
    attempted_ms: int
    answered_ms: int | None
    edges: str
    deadline_ms: int
    partition_no: int
    last_offset: int
    state: str


class Rows(NamedTuple):
    """All rows of one call."""

    record: CallRecord | None
    """Of a call that has ended."""
    acc: list[Acc]
    missed: Missed | None
    cdr: Cdr | None
    open: Open | None


def number(partition: int, began: int) -> int:
    """The id of a call by the place of its first event: partition < 1024, offset < 2**47."""
    return began << 10 | partition


def rows(partition: int, call: Call, known: StoredCall, limits: Limits) -> Rows:
    """What the tables are to have of a call."""
    state = known.state
    id_ = number(partition, known.began)
    told = record(call, state)
    acc = _acc(partition, id_, told, known)
    if is_open(state):
        return Rows(None, acc, None, None, _open(partition, id_, told, known, deadline(state, limits)))
    missed = _missed(partition, id_, told) if told.missed else None
    return Rows(told, acc, missed, _cdr(partition, id_, told, known), None)


def _acc(partition: int, id_: int, told: CallRecord, known: StoredCall) -> list[Acc]:
    found = []
    src, dst = (*_user(told.caller), _ip(told.source)), (_user(told.dialled)[0], *_user(_called(told)))
    call, created = (told.from_tag, told.cseq), date(told.attempted)
    if told.code:
        at = told.answered or told.attempted
        seconds, milliseconds = -(-told.talk_ms // 1000), told.talk_ms
        row = (
            id_ << 1, "INVITE", told.from_tag, told.to_tag, told.call_id, str(told.code), told.phrase[:_REASON],
            date(at), min(seconds, _UNSIGNED), min(milliseconds, _UNSIGNED), _setup(told), created, *call, *src, *dst,
            at, partition,
        )  # fmt: skip
        found.append(_new(Acc, row))
    if told.outcome == "answered" and (ending := bye(known.state)):
        tag, end = ending
        tags = (told.from_tag, tag)
        if end.by == "callee":
            tags, src, dst = (tag, told.from_tag), (*dst[1:], ""), (src[0], src[0], src[1])
        # The row of a BYE says nothing of the call but when it ended; whoever wants more has `cdrs`.
        row = (
            (id_ << 1) + 1, "BYE", *tags, told.call_id, "200", "OK", date(told.ended), 0, 0, 0, created, *call, *src,
            *dst, told.ended, partition,
        )  # fmt: skip
        found.append(_new(Acc, row))
    return found


def _missed(partition: int, id_: int, told: CallRecord) -> Missed:
    return Missed(
        id_,
        "INVITE",
        told.from_tag,
        told.to_tag,
        told.call_id,
        str(told.code) if told.code else "",
        told.phrase[:_REASON],
        date(told.attempted),
        _setup(told),
        date(told.attempted),
        told.cseq,
        *_user(told.caller),
        _ip(told.source),
        _user(told.dialled)[0],
        *_user(told.callee),
        told.attempted,
        partition,
    )


def _cdr(partition: int, id_: int, told: CallRecord, known: StoredCall) -> Cdr:
    row = (
        id_,
        told.call_id,
        told.from_tag,
        told.cseq,
        told.to_tag,
        told.outcome,
        told.caller,
        told.callee,
        int(told.ours),
        told.dialled,
        told.answered_by,
        told.attempted,
        told.rang or None,
        told.answered or None,
        told.ended or None,
        told.setup_ms,
        told.talk_ms,
        told.code,
        told.phrase,
        told.reason,
        told.cause,
        told.hung_up,
        int(told.missed),
        ",".join(told.edges)[:_EDGES],
        told.source,
        told.caller_transport,
        told.callee_transport,
        told.caller_agent,
        told.callee_agent,
        ",".join(told.codecs)[:_CODECS],
        told.gateway,
        told.branches,
        told.transferred_to,
        told.session_expires,
        int(told.incomplete),
        int(told.estimated),
        partition,
        known.last,
        to_text(known.state),
    )
    return _new(Cdr, row)


def _open(partition: int, id_: int, told: CallRecord, known: StoredCall, until: int) -> Open:
    return Open(
        id_,
        told.call_id,
        told.from_tag,
        told.cseq,
        told.caller,
        told.callee,
        told.dialled,
        "answered" if told.answered else "ringing" if told.rang else "attempted",
        told.attempted,
        told.answered or None,
        ",".join(told.edges)[:_EDGES],
        until,
        partition,
        known.last,
        to_text(known.state),
    )


def _called(told: CallRecord) -> str:
    """Whom the call was for: the callee's AOR, or what was dialled."""
    return told.callee if told.ours else told.dialled or told.callee


def _setup(told: CallRecord) -> int:
    """OpenSIPS takes the difference of whole seconds."""
    return min((told.attempted + told.setup_ms) // 1000 - told.attempted // 1000, _UNSIGNED)


def _ip(source: str) -> str:
    """The address of `192.0.2.4:5060` or `[2001:db8::4]:5060`."""
    return source.rpartition(":")[0].strip("[]")


@lru_cache(maxsize=4096)
def _user(text: str) -> tuple[str, str]:
    """User and domain of an AOR or a URI; what has no user is a domain, a tel URI a user."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() in ("sip", "sips", "tel"):
        text = rest.partition(";")[0].partition("?")[0]
        if scheme.lower() == "tel":
            return text, ""
    user, _, domain = text.rpartition("@")
    return user, domain


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    within = min(max(seconds, 0), _LAST_SECOND)
    return datetime.datetime.fromtimestamp(within, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def date(milliseconds: int) -> str:
    """UTC as DATETIME text; many rows of a second share it."""
    return _second(milliseconds // 1000)
