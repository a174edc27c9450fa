"""What became of a call by its events, and which rows and records a batch of events changes; pure.

A call is open until it has one end; of several dialogs (two phones answered at once) the call ends with the last.
A BYE without its answer, or anything without its `CallAttempted`, makes an incomplete record. `CallTimedOut` closes
what has no end, unless something later was heard. Times never run backwards within a record, whatever the edges'
clocks say.

A call of one of our users is missed if nobody answered it and the user did not refuse it: the caller gave up, no
phone was there or answered in time, or the phones rang and then something failed. Busy and declined are no missed
calls, nor is what never reached the user (a number that does not exist, a caller who may not call).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from cdr.forgetting import hidden_sides, hide, is_hidden, sides_of
from cdr.state import NEVER, Answer, Begin, Branch, Call, End, Final, State, call_of, evolve
from events.calls import CallEvent, CallTimedOut
from events.cdrs import CallRecord, Outcome

REFUSED = frozenset({486, 600, 603, 607, 608})
"""Busy or declined: the callee knows of the call (RFC 3261 section 21; RFC 8197, RFC 8688)."""
NOT_REACHED = frozenset({408, 480, 487})
_new = tuple.__new__
"""Twice as fast as a named tuple's own."""
OURS = "cdr"
"""The name of the writer of `CallTimedOut`."""


class Limits(NamedTuple):
    """When a call without an end is closed; milliseconds."""

    setup: int
    call: int
    grace: int


class StoredCall(NamedTuple):
    """What the tables have of a call."""

    state: State
    began: int
    """The offset of the first record of it."""
    last: int
    """The offset of the last one that changed the state."""


class Decision(msgspec.Struct):
    """What a batch changes; written in one transaction with the position."""

    changed: dict[Call, StoredCall] = {}
    before: dict[Call, StoredCall] = {}
    """What was known of those of them of which something was."""


def decide(events: Iterable[tuple[int, CallEvent]], known: Mapping[Call, StoredCall]) -> Decision:
    """The calls that these events change, each event with its offset."""
    decision = Decision()
    changed = decision.changed
    for offset, event in events:
        call = call_of(event)
        before = changed.get(call) or known.get(call)
        state = State() if before is None else before.state
        after = evolve(state, event)
        if after is not state and before is not None and is_hidden(state):
            after = hide(after, hidden_sides(state))
            after = state if after == state else after
        if after is state:
            continue
        if before is None:
            changed[call] = _new(StoredCall, (after, offset, offset))
        else:
            changed[call] = _new(StoredCall, (after, before.began, offset))
            if call in known:
                decision.before[call] = known[call]
    return decision


def forget(person: str, offset: int, known: Mapping[Call, StoredCall]) -> Decision:
    """Of these calls, those that somebody was in, without him; `offset` is that of the record that says so."""
    decision = Decision()
    for call, before in known.items():
        after = hide(before.state, sides_of(before.state, person))
        if after is not before.state:
            decision.changed[call] = StoredCall(after, before.began, offset)
            decision.before[call] = before
    return decision


# --- one call --------------------------------------------------------------------------------------------------------


def life(state: State) -> int:
    """The last sign of life."""
    if not state.answers:
        return state.latest
    return max(state.refreshed.at, *(answer.at for answer in state.answers.values()))


def lasting(state: State) -> list[str]:
    """The tags of the dialogs that no BYE has ended, the earliest first."""
    tags = [tag for tag in state.answers if tag not in state.ends]
    return tags if len(tags) < 2 else sorted(tags, key=lambda tag: (state.answers[tag], tag))


def is_silent(state: State) -> bool:
    """Whether the call was given up after its last sign of life."""
    return state.silence is not None and state.silence.last >= life(state)


def is_open(state: State) -> bool:
    """Whether the call has no end yet."""
    if state.answers:
        return not state.answers.keys() <= state.ends.keys() and not is_silent(state)
    return state.final is None and not state.ends and not is_silent(state)


def deadline(state: State, limits: Limits) -> int:
    """When an open call is to be closed."""
    if not state.answers:
        return state.latest + limits.setup
    seconds = session_expires(state)
    return life(state) + seconds * 1000 + limits.grace if seconds else _answered_at(state) + limits.call


def timed_out(call: Call, state: State, limits: Limits, now: int) -> CallTimedOut | None:
    """The event that closes an open call whose deadline is over."""
    if not is_open(state) or deadline(state, limits) > now:
        return None
    end = state.latest
    if state.answers:
        seconds = session_expires(state)
        end = life(state) + seconds * 1000 if seconds else _answered_at(state) + limits.call
    return CallTimedOut(
        call_id=call.call_id, from_tag=call.from_tag, cseq=call.cseq, at=now, edge=OURS, last=life(state), end=end
    )


def session_expires(state: State) -> int:
    """Seconds of the session timer in force; 0: none. Of the answer and a refresh the later one says it.

    An UPDATE may come before the answer (RFC 3311 section 5.1).
    """
    answer = min((answer for answer in state.answers.values()), default=_NO_ANSWER)
    return state.refreshed.session_expires if state.refreshed.at >= answer.at else answer.session_expires


_NO_ANSWER = Answer(NEVER, "", 0, "", "", "", (), "", 0)


def _answered_at(state: State) -> int:
    return min(answer.at for answer in state.answers.values())


def record(call: Call, state: State) -> CallRecord:
    """The call as it is known; of an open one, all but its end."""
    tag, answer, end = _dialog(state)
    begin, final, said = state.begin or _UNTOLD, state.final, end or state.final
    ended, was_answered = not is_open(state), _was_answered(state)
    # Who was tried last, where nobody answered.
    there = answer or max(state.branches.values(), default=_NOWHERE)
    attempted = _attempted(state, end)
    rang = 0 if state.rang == NEVER else max(state.rang, attempted)
    answered = 0 if answer is None else max(answer.at, rang, attempted)
    over = max(_ended(state, end), answered, rang, attempted) if ended else 0
    until = answered if was_answered else over
    outcome, code, phrase = _outcome(answer, final, was_answered=was_answered)
    return CallRecord(
        call_id=call.call_id,
        from_tag=call.from_tag,
        cseq=call.cseq,
        to_tag=tag or (final.to_tag if final else ""),
        outcome=outcome,
        code=code,
        phrase=phrase,
        reason=said.reason if said else "",
        cause=said.cause if said else 0,
        hung_up=("timeout" if end is None else end.by) if was_answered and ended else "",
        missed=ended and not was_answered and _is_missed(state),
        caller=_caller(state, end),
        callee=(begin.callee or begin.to_uri) if state.begin else end.callee_uri if end else "",
        ours=bool(begin.callee),
        dialled=begin.dialled,
        source=begin.source,
        caller_transport=begin.transport,
        caller_agent=begin.agent,
        answered_by=answer.contact if answer else "",
        callee_transport=there.transport,
        callee_agent=answer.agent if answer else "",
        codecs=(answer.codecs if answer else ()) or begin.codecs,
        gateway=there.gateway,
        attempted=attempted,
        rang=rang,
        answered=answered,
        ended=over,
        setup_ms=until - attempted if until else 0,
        talk_ms=over - answered if answered and over else 0,
        edges=state.edges,
        branches=len(state.branches),
        transferred_to=state.transferred[1] if state.transferred else "",
        session_expires=session_expires(state),
        incomplete=state.begin is None or (end is not None and answer is None),
        estimated=ended and _is_estimated(state),
    )


_UNTOLD = Begin(0, "", "", "", "", "", "", "", "", "", "", ())
_NOWHERE = Branch(0, "", "")


def _caller(state: State, end: End | None) -> str:
    if state.begin is None:
        return end.caller_uri if end else ""
    return state.begin.caller or state.begin.asserted or state.begin.from_uri


def _outcome(answer: Answer | None, final: Final | None, *, was_answered: bool) -> tuple[Outcome, int, str]:
    """With the final response."""
    if was_answered:
        return ("answered", answer.code, "OK") if answer else ("answered", 0, "")
    if final is None:
        return "failed", 0, ""
    return final.kind, final.code, final.phrase


def _was_answered(state: State) -> bool:
    return bool(state.answers) or (state.final is None and bool(state.ends))


def _is_estimated(state: State) -> bool:
    """Of a call that has ended: whether nothing told of it."""
    return bool(lasting(state)) if state.answers else state.final is None and not state.ends


def _dialog(state: State) -> tuple[str, Answer | None, End | None]:
    """The dialog that the call is: one that lasts, else the one that ended last; its tag, answer and BYE."""
    if not state.answers:
        if state.final is None and state.ends:
            tag = min(state.ends, key=lambda each: (state.ends[each], each))
            return tag, None, state.ends[tag]
        return "", None, None
    if tags := lasting(state):
        return tags[0], state.answers[tags[0]], None
    tag = max(state.answers, key=lambda each: (state.ends[each], each))
    return tag, state.answers[tag], state.ends[tag]


def _attempted(state: State, end: End | None) -> int:
    """When it began, as near as it is known."""
    if state.begin is not None:
        return state.begin.at
    begun = end.begun if end else 0
    return min(state.first, begun or NEVER)


def _ended(state: State, end: End | None) -> int:
    if end is not None:
        return end.at
    if not state.answers and state.final is not None:
        return state.final.at
    return state.silence.end if state.silence else state.latest


def _is_missed(state: State) -> bool:
    begin, final = state.begin, state.final
    if begin is None or not begin.callee:
        return False
    if final is None:
        return bool(state.branches)
    if final.kind == "redirected" or final.code in REFUSED:
        return False
    return final.kind == "cancelled" or final.code in NOT_REACHED or state.rang != NEVER


def bye(state: State) -> tuple[str, End] | None:
    """The BYE of the call's own dialog, with the callee's tag; None if it has not ended by one."""
    tag, _, end = _dialog(state)
    return None if end is None else (tag, end)
