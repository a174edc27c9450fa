"""A call told from its events alone: in words, and as a ladder to be drawn (CHECKLIST E21). PURE.

The lanes of a ladder are the caller, each edge that saw the call, and each branch.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cdr.decider import is_open, record
from cdr.state import Call, State, call_of, evolve
from console.phrases import ENGLISH, Phrases
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
    steps,
)
from events.cdrs import CallRecord
from sipcore.reasons import in_words

CALLER = "caller"


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
    calls: dict[Call, dict[str, tuple[int, str, bool, CallEvent]]] = {}
    for event in events:
        of_call = calls.setdefault(call_of(event), {})
        for step in steps(event):
            # What was told by an event of its own goes before what another one says of it.
            told = (step.at, step.edge, type(step) is not type(event), step)
            known = of_call.get(id_ := event_id(step))
            if known is None or told[:3] < known[:3]:
                of_call[id_] = told
    found = []
    for call, once in calls.items():
        state = State()
        for *_, step in once.values():
            state = evolve(state, step)
        # Events of one millisecond stay as they were written, but nothing precedes the INVITE.
        of_call_ = (step for *_, step in once.values())
        ordered = sorted(of_call_, key=lambda each: (each.at, not isinstance(each, CallAttempted)))
        found.append(CallStory(call, ordered, state))
    return sorted(found, key=lambda told: told.state.first)


# --- words -----------------------------------------------------------------------------------------------------------


def words(told: CallStory, when: Callable[[int], str], phrases: Phrases = ENGLISH) -> list[str]:
    """Who called whom, when; which bindings were seen, which branches were made, and why it ended as it did.

    `when`: a moment, in milliseconds, as the reader's clock shows it.
    """
    return [
        *_opening(told, when, phrases),
        *_branches(told, phrases),
        *_transfers(told, phrases),
        _ending(told, phrases),
    ]


def _opening(told: CallStory, when: Callable[[int], str], say: Phrases) -> Iterator[str]:
    begin = next((event for event in told.events if isinstance(event, CallAttempted)), None)
    if begin is None:
        yield say["beginning_unknown"].format(at=when(told.state.first))
        return
    as_said = begin.caller and begin.from_uri == f"sip:{begin.caller}"
    way = "how" if begin.transport else "how_imported"
    how = say[way].format(source=begin.source, transport=begin.transport) if begin.source else say["how_unknown"]
    yield say["opening"].format(
        at=when(begin.at),
        who=begin.caller or begin.asserted or say["somebody"],
        says="" if as_said else say["says"].format(uri=begin.from_uri),
        dialled=begin.dialled,
        how=how,
        phone=say["phone"].format(agent=begin.agent) if begin.agent else "",
        edge=begin.edge,
    )
    if begin.peer:
        yield say["peer"]
    if _is_imported(begin):
        yield say["imported"].format(proxy=begin.edge)
        return
    targets, count = ", ".join(begin.targets), len(begin.targets) + begin.more_targets
    if begin.more_targets:
        targets += say["more"].format(count=begin.more_targets)
    if not begin.callee:
        yield say["not_ours"].format(tried=say["tried"].format(targets=targets) if targets else "")
    else:
        seen = "seen_none" if not count else "seen_one" if count == 1 else "seen_many"
        yield say[seen].format(callee=begin.callee, count=count, targets=targets)


def _is_imported(begin: CallAttempted) -> bool:
    """Whether another proxy's records tell of it (`ramal import`): an edge always says by which transport it came."""
    return not begin.transport


def _branches(told: CallStory, say: Phrases) -> Iterator[str]:
    started = [event for event in told.events if isinstance(event, BranchStarted)]
    finals = {event.branch: event for event in told.events if isinstance(event, BranchFinal)}
    for number, branch in enumerate(started, 1):
        ways = say["gateway"].format(gateway=branch.gateway) if branch.gateway else ""
        ways += say["owner"].format(owner=branch.owner) if branch.owner else ""
        heard = [
            say["heard"].format(response=in_words(event.code, event.phrase), after=after(event.at - branch.at))
            for event in told.events
            if isinstance(event, BranchProvisional) and event.branch == branch.branch
        ]
        if (final := finals.get(branch.branch)) is None:
            heard.append(say["no_final"])
        else:
            how = "heard_ours" if final.ours else "heard"
            response = in_words(final.code, final.phrase)
            heard.append(say[how].format(response=response, after=after(final.at - branch.at)))
        yield say["branch"].format(
            number=number,
            contact=branch.contact,
            source=branch.source,
            transport=branch.transport,
            ways=ways,
            heard="; ".join(heard),
        )


def _transfers(told: CallStory, say: Phrases) -> Iterator[str]:
    for event in told.events:
        if isinstance(event, CallTransferred):
            late = after(event.at - told.state.first)
            yield _sentence(say["transfer"].format(by=say.get(event.by, event.by), target=event.target, after=late))


def _ending(told: CallStory, say: Phrases) -> str:
    made = told.record
    if is_open(told.state):
        return say["lasts" if made.answered else "no_end"]
    why = say["reason"].format(reason=made.reason) if made.reason else ""
    late, talk = after(made.setup_ms), duration(made.talk_ms / 1000)
    if made.outcome == "answered":
        answered = say["answered"].format(after=late) if made.answered else say["answered_when_unknown"]
        if made.hung_up == "timeout":
            return say["timed_out"].format(answered=answered, talk=talk)
        if not made.hung_up:
            return say["ended"].format(answered=answered, talk=talk, why=why)
        return say["hung_up"].format(answered=answered, by=say.get(made.hung_up, made.hung_up), talk=talk, why=why)
    if made.outcome == "cancelled":
        return say["cancelled"].format(after=late, response=in_words(made.code, made.phrase), why=why)
    if made.outcome == "redirected":
        return say["redirected"].format(response=in_words(made.code, made.phrase))
    if not made.code:
        return say["died"]
    return say["failed"].format(response=in_words(made.code, made.phrase), why=why, cause=_cause(told, say))


def _cause(told: CallStory, say: Phrases) -> str:
    final = next((event for event in told.events if isinstance(event, CallFailed)), None)
    started = [event.branch for event in told.events if isinstance(event, BranchStarted)]
    imported = any(isinstance(event, CallAttempted) and _is_imported(event) for event in told.events)
    if final is None or imported:
        return say["cause_unknown"]
    if final.branch in started:
        best = say["best"].format(count=len(started)) if len(started) > 1 else ""
        return say["cause_branch"].format(number=started.index(final.branch) + 1, best=best)
    return say.get(str(final.code), say["cause_edge"])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def after(milliseconds: int) -> str:
    """`480 ms`, `2.1 s`."""
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def duration(seconds: float) -> str:
    """`4 min 10 s`, `2 h 5 min`; coarse, for people."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


# --- ladder ----------------------------------------------------------------------------------------------------------


class Arrow(NamedTuple):
    """One message, between two lanes by their numbers; within one: what happened there."""

    at: int
    """Milliseconds since the call began."""
    start: int
    end: int
    text: str


class Ladder(NamedTuple):
    """What is to be drawn."""

    lanes: Sequence[str]
    """Their titles."""
    arrows: Sequence[Arrow]


def ladder(told: CallStory, phrases: Phrases = ENGLISH) -> Ladder:
    """The call as arrows between its caller, the edges and the branches."""
    started = [event for event in told.events if isinstance(event, BranchStarted)]
    edges = list(dict.fromkeys(event.edge for event in told.events if not isinstance(event, CallTimedOut)))
    lanes = [CALLER, *edges, *(event.branch for event in started)]
    titles = [phrases[CALLER], *edges, *(f"{n} {event.source or event.contact}" for n, event in enumerate(started, 1))]
    answered = next((event.branch for event in told.events if isinstance(event, CallAnswered)), "")
    places = {lane: number for number, lane in reversed(list(enumerate(lanes)))}
    arrows = []
    for event in told.events:
        for start, end, text in _arrows(event, answered, phrases):
            # A branch whose beginning is not known has no lane: what it says is its edge's.
            known = places.get(event.edge, 0)
            arrows.append(Arrow(event.at - told.state.first, places.get(start, known), places.get(end, known), text))
    return Ladder(titles, arrows)


def _arrows(event: CallEvent, answered: str, say: Phrases) -> Iterator[tuple[str, str, str]]:  # a table by kind
    edge = event.edge
    match event:
        case CallAttempted():
            yield CALLER, edge, "INVITE"
        case BranchStarted():
            yield edge, event.branch, "INVITE"
        case BranchProvisional() | BranchFinal():
            ours = isinstance(event, BranchFinal) and event.ours
            yield (edge if ours else event.branch), edge, in_words(event.code, event.phrase)
        case CallRinging() | CallAnswered():
            yield edge, CALLER, str(event.code)
        case CallFailed():
            yield edge, CALLER, in_words(event.code, event.phrase)
        case CallCancelled():
            yield CALLER, edge, "CANCEL"
            yield edge, CALLER, str(event.code)
        case CallRedirected():
            yield edge, CALLER, str(event.code)
        case CallEnded(by=""):
            yield edge, edge, "BYE"
        case CallEnded():
            sides = (CALLER, answered or edge)
            start, end = sides if event.by == "caller" else sides[::-1]
            yield start, end, "BYE"
        case CallRefreshed() | CallTransferred():
            sides = (CALLER, answered or edge)
            start, end = sides if event.by == "caller" else sides[::-1]
            yield start, end, "REFER" if isinstance(event, CallTransferred) else say["refresh"]
        case CallTimedOut():
            yield CALLER, CALLER, say["nothing_heard"]
