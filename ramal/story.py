"""A call told from its events alone: in words, and as a ladder of text (CHECKLIST E21). PURE.

`Lane`s of a ladder are the caller, each edge that saw the call, and each branch.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cdr.decider import is_open, record
from cdr.state import Call, State, call_of, evolve
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
    event_id,
)
from events.cdrs import CallRecord
from ramal.wording import duration, local_time

WIDTH = 26
"""Columns of one lane, where there is room."""
NARROW = 9
"""Of one lane, where there is none: an arrow and a code."""
TIMES = 10
"""Columns of the times beside the ladder."""
CALLER = "caller"
OURS = {
    403: "the caller may not call there",
    404: "nobody of ours has this name or number, and no gateway takes it",
    408: "nothing was answered in time",
    416: "the Request-URI has a scheme that is not called",
    430: "the connection to the phone was gone",
    480: "no phone of the callee was registered, or none could be reached",
    482: "the call had come back in a loop",
    483: "it had passed too many proxies",
    503: "something that a call needs was away, or there were too many calls",
}
"""Why an edge itself answers so."""


class CallStory(NamedTuple):
    """One call of a Call-ID: its events in order, each once."""

    call: Call
    events: Sequence[CallEvent]
    state: State

    @property
    def record(self) -> CallRecord:
        """What became of it."""
        return record(self.call, self.state)


def stories(events: Sequence[CallEvent]) -> list[CallStory]:
    """The calls that these events are of, the earliest first; what was told twice is there once."""
    calls: dict[Call, dict[str, CallEvent]] = {}
    for event in events:
        of_call = calls.setdefault(call_of(event), {})
        known = of_call.get(id_ := event_id(event))
        if known is None or (event.at, event.edge) < (known.at, known.edge):
            of_call[id_] = event
    found = []
    for call, once in calls.items():
        state = State()
        for event in once.values():
            state = evolve(state, event)
        # Events of one millisecond stay as they were written, but nothing precedes the INVITE.
        ordered = sorted(once.values(), key=lambda each: (each.at, not isinstance(each, CallAttempted)))
        found.append(CallStory(call, ordered, state))
    return sorted(found, key=lambda told: told.state.first)


# --- words -----------------------------------------------------------------------------------------------------------


def words(told: CallStory) -> list[str]:
    """Who called whom, when; which bindings were seen, which branches were made, and why it ended as it did."""
    return [*_opening(told), *_branches(told), *_transfers(told), _ending(told)]


def _opening(told: CallStory) -> Iterator[str]:
    begin = next((event for event in told.events if isinstance(event, CallAttempted)), None)
    if begin is None:
        yield f"The beginning of this call is not known; the first event is of {local_time(told.state.first)}."
        return
    who = begin.caller or begin.asserted or "somebody"
    says = "" if begin.caller and begin.from_uri == f"sip:{begin.caller}" else f" (From {begin.from_uri})"
    how = f"from {begin.source} by {begin.transport}" if begin.source else "from an unknown address"
    phone = f" with {begin.agent}" if begin.agent else ""
    yield f"{local_time(begin.at)}: {who}{says} called {begin.dialled} {how}{phone}, at {begin.edge}."
    if begin.peer:
        yield "It came from a listed peer, which is not challenged."
    if not begin.callee:
        yield f"That is no user of ours{'; to be tried: ' + ', '.join(begin.targets) if begin.targets else ''}."
    elif begin.targets:
        count = len(begin.targets)
        seen = f"{count} binding{'s' * (count != 1)} {'was' if count == 1 else 'were'} seen"
        yield f"That is {begin.callee}, of whom {seen}: {', '.join(begin.targets)}."
    else:
        yield f"That is {begin.callee}, of whom no binding was seen."


def _branches(told: CallStory) -> Iterator[str]:
    started = [event for event in told.events if isinstance(event, BranchStarted)]
    finals = {event.branch: event for event in told.events if isinstance(event, BranchFinal)}
    for number, branch in enumerate(started, 1):
        ways = f" by the gateway {branch.gateway}" if branch.gateway else ""
        ways += f" through {branch.owner}, which holds its flow" if branch.owner else ""
        text = f"Branch {number} went to {branch.contact} at {branch.source} by {branch.transport}{ways}"
        heard = [
            f"{event.code} {event.phrase} after {_after(event.at - branch.at)}"
            for event in told.events
            if isinstance(event, BranchProvisional) and event.branch == branch.branch
        ]
        if (final := finals.get(branch.branch)) is None:
            heard.append("no final response is known")
        else:
            by = ", made by us: nothing had come, or it could not be sent," if final.ours else ""
            heard.append(f"{final.code} {final.phrase}{by} after {_after(final.at - branch.at)}")
        yield f"{text}: {'; '.join(heard)}."


def _transfers(told: CallStory) -> Iterator[str]:
    for event in told.events:
        if isinstance(event, CallTransferred):
            after = _after(event.at - told.state.first)
            yield f"The {event.by} asked to go on with {event.target} after {after} (REFER)."


def _ending(told: CallStory) -> str:
    made = told.record
    if is_open(told.state):
        return "It is answered and lasts." if made.answered else "It has no end yet."
    why = f" ({made.reason})" if made.reason else ""
    if made.outcome == "answered":
        answered = (
            f"It was answered after {_after(made.setup_ms)}" if made.answered else "It was answered, when is unknown"
        )
        if made.hung_up == "timeout":
            return f"{answered}; no BYE came, so it is taken to have ended after {duration(made.talk_ms / 1000)}."
        return f"{answered}, and the {made.hung_up} hung up after {duration(made.talk_ms / 1000)}{why}."
    if made.outcome == "cancelled":
        return f"The caller gave up after {_after(made.setup_ms)}: {made.code} {made.phrase}{why}."
    if made.outcome == "redirected":
        return f"The caller was sent elsewhere: {made.code} {made.phrase}."
    if not made.code:
        return "Nothing more was heard of it: the edge that had it has died."
    return f"It failed with {made.code} {made.phrase}{why}: {_cause(told)}."


def _cause(told: CallStory) -> str:
    final = next((event for event in told.events if isinstance(event, CallFailed)), None)
    started = [event.branch for event in told.events if isinstance(event, BranchStarted)]
    if final is None:
        return "why is unknown"
    if final.branch in started:
        number = started.index(final.branch) + 1
        best = f", the best of {len(started)} (RFC 3261 section 16.7)" if len(started) > 1 else ""
        return f"that is what branch {number} answered{best}"
    return OURS.get(final.code, "an edge answered so itself")


def _after(milliseconds: int) -> str:
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


# --- ladder ----------------------------------------------------------------------------------------------------------


def ladder(told: CallStory, columns: int = 0) -> list[str]:
    """The call as arrows between its caller, the edges and the branches; times are milliseconds since it began.

    It fits into so many columns if lanes of NARROW do; 0: as wide as it is.
    """
    started = [event for event in told.events if isinstance(event, BranchStarted)]
    edges = list(dict.fromkeys(event.edge for event in told.events if not isinstance(event, CallTimedOut)))
    lanes = [CALLER, *edges, *(event.branch for event in started)]
    titles = [CALLER, *edges, *(f"{number} {event.source or event.contact}" for number, event in enumerate(started, 1))]
    answered = next((event.branch for event in told.events if isinstance(event, CallAnswered)), "")
    width = min(WIDTH, max(NARROW, (columns - TIMES) // len(lanes))) if columns else WIDTH
    lines = [" " * TIMES + "".join(title[: width - 1].ljust(width) for title in titles).rstrip()]
    for event in told.events:
        for start, end, text in _arrows(event, answered):
            at = str(event.at - told.state.first).rjust(8)
            lines.append(f"{at}  {_arrow(lanes, start, end, text, width)}".rstrip())
    return lines


def _arrows(event: CallEvent, answered: str) -> Iterator[tuple[str, str, str]]:  # a table by kind
    edge = event.edge
    match event:
        case CallAttempted():
            yield CALLER, edge, "INVITE"
        case BranchStarted():
            yield edge, event.branch, "INVITE"
        case BranchProvisional() | BranchFinal():
            ours = isinstance(event, BranchFinal) and event.ours
            yield (edge if ours else event.branch), edge, f"{event.code} {event.phrase}"
        case CallRinging() | CallAnswered():
            yield edge, CALLER, str(event.code)
        case CallFailed():
            yield edge, CALLER, f"{event.code} {event.phrase}"
        case CallCancelled():
            yield CALLER, edge, "CANCEL"
            yield edge, CALLER, str(event.code)
        case CallRedirected():
            yield edge, CALLER, str(event.code)
        case CallEnded():
            sides = (CALLER, answered or edge)
            start, end = sides if event.by == "caller" else sides[::-1]
            yield start, end, "BYE"
        case CallRefreshed() | CallTransferred():
            sides = (CALLER, answered or edge)
            start, end = sides if event.by == "caller" else sides[::-1]
            yield start, end, "REFER" if isinstance(event, CallTransferred) else "refresh"
        case CallTimedOut():
            yield CALLER, CALLER, "(nothing heard any more)"


def _arrow(lanes: Sequence[str], start: str, end: str, text: str, width: int) -> str:
    """One line: the lanes as `|`, and an arrow from one to another with its text."""
    first, last = lanes.index(start), lanes.index(end) if end in lanes else lanes.index(start)
    cells = list("".join("|".ljust(width) for _ in lanes))
    if first == last:
        label = f" {text}"
        position = first * width + 1
    else:
        left, right = sorted((first * width, last * width))
        room = right - left - 1
        if len(text) > room - 4 and text[:3].isdigit():
            text = text[:3]  # of a status line the code says it
        label = f" {text} " if len(text) <= room - 4 else text[: room - 1]
        label = label.center(room, "-") if room - len(label) > 1 else label.ljust(room, "-")
        label = f"{label[:-1]}>" if first < last else f"<{label[1:]}" if label[0] in "- " else f"<{label[:-1]}"
        position = left + 1
    cells[position : position + len(label)] = label
    return "".join(cells)
