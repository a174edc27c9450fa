"""What is known of a call by its events, in whatever order they came, however often; pure.

Each member of `State` only ever moves in one direction (the earliest, the latest, a union), so that `evolve` is
commutative, associative and idempotent: any permutation of a call's events, with any repetitions, gives one state.
Where two edges tell of one event differently, the earlier one counts. Every set is bounded by keeping the least.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from events.calls import Branch as FirstBranch
from events.calls import (
    BranchFinal,
    BranchProvisional,
    BranchStarted,
    CallAnswered,
    CallAttempted,
    CallCancelled,
    CallEnded,
    CallEvent,
    CallFailed,
    CallRedirected,
    CallRefreshed,
    CallRinging,
    CallTimedOut,
    CallTransferred,
    EndedBy,
    MessageAttempted,
    MessageDelivered,
    MessageFailed,
)
from events.cdrs import Outcome
from events.limits import CALL_ID, TAG, URI, USER_AGENT

NEVER = 1 << 62
"""Later than any time."""
DIALOGS = 8
"""Of one call: more phones than that do not answer at once."""
BRANCHES = 64
EDGES = 16
CODECS = 16
CODEC = 32
"""Characters of one codec's name."""
TRANSPORT = 8
EDGE = 64


class Call(NamedTuple):
    """What names a call in the tables."""

    call_id: str
    from_tag: str
    cseq: int


_new = tuple.__new__
"""Twice as fast as a named tuple's own."""


class Begin(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """The earliest `CallAttempted`."""

    at: int
    edge: str
    caller: str
    asserted: str
    from_uri: str
    to_uri: str
    callee: str
    dialled: str
    source: str
    transport: str
    agent: str
    codecs: tuple[str, ...]


class Answer(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """The earliest `CallAnswered` of one dialog."""

    at: int
    edge: str
    code: int
    contact: str
    transport: str
    agent: str
    codecs: tuple[str, ...]
    gateway: str
    session_expires: int


class End(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """The earliest `CallEnded` of one dialog."""

    at: int
    edge: str
    by: EndedBy
    reason: str
    cause: int
    begun: int
    caller_uri: str
    callee_uri: str


class Final(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """The earliest final response that is no 2xx."""

    at: int
    kind: Outcome
    edge: str
    code: int
    phrase: str
    to_tag: str
    reason: str
    cause: int


class Sign(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """The latest refresh of the session."""

    at: int = 0
    session_expires: int = 0


class Silence(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """The latest `CallTimedOut`."""

    last: int
    end: int


class Branch(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """The earliest `BranchStarted` of one branch."""

    at: int
    transport: str
    gateway: str


class State(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All that counts of a call's events."""

    first: int = NEVER
    latest: int = 0
    """The last sign of life of a call that is being set up."""
    begin: Begin | None = None
    rang: int = NEVER
    answers: dict[str, Answer] = {}
    """By the callee's tag."""
    ends: dict[str, End] = {}
    refreshed: Sign = Sign()
    final: Final | None = None
    silence: Silence | None = None
    transferred: tuple[int, str] | None = None
    """When, and whereto."""
    branches: dict[str, Branch] = {}
    """By a digest of the branch."""
    edges: tuple[str, ...] = ()


def call_of(event: CallEvent) -> Call:
    """The call that an event is of; what is longer than its column ends in a digest of all of it."""
    call_id, tag = event.call_id, event.from_tag
    if len(call_id) > CALL_ID or len(tag) > TAG:
        call_id, tag = fitted(call_id, CALL_ID), fitted(tag, TAG)
    return _new(Call, (call_id, tag, event.cseq))


def fitted(text: str, width: int) -> str:
    """The text, or its beginning and a digest: texts that differ stay different."""
    if len(text) <= width:
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return f"{text[: width - 25]}~{digest}"


def evolve(state: State, event: CallEvent) -> State:
    """The state after an event; the same object if it changes nothing."""
    merge = _MERGES.get(type(event))
    if merge is None:
        return state
    changes = merge(state, event)
    if not isinstance(event, CallTimedOut):
        if event.at < state.first:
            changes["first"] = event.at
        if event.at > changes.get("latest", state.latest):
            changes["latest"] = event.at
        edge = event.edge[:EDGE]
        if not state.edges:
            changes["edges"] = (edge,)
        elif edge not in state.edges:
            edges = tuple(sorted({*state.edges, edge})[:EDGES])
            if edges != state.edges:
                changes["edges"] = edges
    return replace(state, **changes) if changes else state


Changes = dict[str, Any]


def _codecs(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) <= CODECS and max(map(len, names), default=0) <= CODEC:
        return names  # as nearly all are
    return tuple(name[:CODEC] for name in names[:CODECS])


def _begin(state: State, e: CallAttempted) -> Changes:
    new = Begin(
        e.at,
        e.edge[:EDGE],
        e.caller[:URI],
        e.asserted[:URI],
        e.from_uri[:URI],
        e.to_uri[:URI],
        e.callee[:URI],
        e.dialled[:URI],
        e.source[:URI],
        e.transport[:TRANSPORT],
        e.agent[:USER_AGENT],
        _codecs(e.codecs),
    )
    changes: Changes = {"begin": new} if state.begin is None or new < state.begin else {}
    if (first := e.first) is not None:
        changes |= _branch(state, first)
        if first.at > state.latest:
            changes["latest"] = first.at
    return changes


def _rang(state: State, e: CallRinging) -> Changes:
    return {"rang": e.at} if e.at < state.rang else {}


def _answer(state: State, e: CallAnswered) -> Changes:
    new = Answer(
        e.at,
        e.edge[:EDGE],
        e.code,
        e.contact[:URI],
        e.transport[:TRANSPORT],
        e.agent[:USER_AGENT],
        _codecs(e.codecs),
        e.gateway[:TAG],
        e.session_expires,
    )
    return _least(state, "answers", state.answers, fitted(e.to_tag, TAG), new, DIALOGS)


def _end(state: State, e: CallEnded) -> Changes:
    new = End(e.at, e.edge[:EDGE], e.by, e.reason[:URI], e.cause, e.begun, e.caller_uri[:URI], e.callee_uri[:URI])
    return _least(state, "ends", state.ends, fitted(e.to_tag, TAG), new, DIALOGS)


def _branch(state: State, e: BranchStarted | FirstBranch) -> Changes:
    digest = hashlib.blake2b(e.branch.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
    return _least(
        state, "branches", state.branches, digest, Branch(e.at, e.transport[:TRANSPORT], e.gateway[:TAG]), BRANCHES
    )


def _least(state: State, name: str, known: dict[str, Any], key: str, new: Any, most: int) -> Changes:
    """The mapping with the lesser of what a key had and what it gets; of too many keys, the earliest."""
    if not known:
        return {name: {key: new}}
    if key in known and known[key] <= new:
        return {}
    merged = {**known, key: new}
    if len(merged) > most:
        del merged[max(merged, key=lambda each: (merged[each].at, each))]
        if merged == known:
            return {}
    # In one order, so that equal states have equal octets.
    return {name: dict(sorted(merged.items()))}


def _refresh(state: State, e: CallRefreshed) -> Changes:
    new = Sign(e.at, e.session_expires)
    return {"refreshed": new} if new > state.refreshed else {}


def _transfer(state: State, e: CallTransferred) -> Changes:
    new = (e.at, e.target[:URI])
    return {"transferred": new} if state.transferred is None or new < state.transferred else {}


def _failed(state: State, e: CallFailed) -> Changes:
    return _final(state, Final(e.at, "failed", e.edge, e.code, e.phrase, e.to_tag, e.reason, e.cause))


def _cancelled(state: State, e: CallCancelled) -> Changes:
    return _final(
        state, Final(e.at, "cancelled", e.edge[:EDGE], e.code, "Request Terminated", e.to_tag, e.reason, e.cause)
    )


def _redirected(state: State, e: CallRedirected) -> Changes:
    return _final(state, Final(e.at, "redirected", e.edge, e.code, "Moved Temporarily", e.to_tag, "", 0))


def _final(state: State, new: Final) -> Changes:
    new = replace(new, phrase=new.phrase[:URI], reason=new.reason[:URI], to_tag=fitted(new.to_tag, TAG))
    return {"final": new} if state.final is None or new < state.final else {}


def _silence(state: State, e: CallTimedOut) -> Changes:
    new = Silence(e.last, e.end)
    return {"silence": new} if state.silence is None or new > state.silence else {}


def _life(state: State, e: object) -> Changes:
    """Only a sign of life, and an edge."""
    return {}


_MERGES: dict[type, Callable[[State, Any], Changes]] = {
    CallAttempted: _begin,
    CallRinging: _rang,
    CallAnswered: _answer,
    CallRefreshed: _refresh,
    CallTransferred: _transfer,
    CallEnded: _end,
    CallFailed: _failed,
    CallCancelled: _cancelled,
    CallRedirected: _redirected,
    CallTimedOut: _silence,
    BranchStarted: _branch,
    BranchProvisional: _life,
    BranchFinal: _life,
}
NO_CALLS = (MessageAttempted, MessageDelivered, MessageFailed)
"""Events that no record is made of."""

_decode = msgspec.json.Decoder(State).decode
_encode = msgspec.json.Encoder().encode


def to_text(state: State) -> str:
    """The state for its column; equal for equal states."""
    return _encode(state).decode()


def from_text(text: str) -> State:
    """The state from its column."""
    return _decode(text)
