"""Traces of the log's records: one a command of an edge, one a call. PURE; times are arguments.

A command's records on four topics bear its id (`ce_id`), a call's events its Call-ID. A trace is made when its end has
been seen and `SETTLED_MS` have passed, for topics are read beside each other. Nothing of a person is in a span, for a
collector is not where one can be forgotten: no AOR, address or number; of a Call-ID, in which phones put their address,
its hash, which is the trace's id; of a refusal its code. With topic, partition and offset `ramal tail` has the rest.
"""

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import msgspec

from events.calls import (
    BranchFinal,
    BranchStarted,
    CallAnswered,
    CallAttempted,
    CallCancelled,
    CallEnded,
    CallEvent,
    CallFailed,
    CallRedirected,
    CallTimedOut,
    Happened,
    event_id,
    steps,
)
from events.topics import AUTH_COMMANDS, EDGE_REPLIES, REGISTRAR_COMMANDS, REGISTRATIONS
from events.wire import header
from runtime.log.port import Record

SETTLED_MS = 1000
FORGOTTEN_MS = 60_000
"""A command without an answer by then has none."""
MOST = 50_000
"""Commands, and calls, that are waited for at one time; the oldest go first, untold."""
EVENTS = 256
"""Of one call."""
_ENDS = (CallEnded, CallFailed, CallCancelled, CallRedirected, CallTimedOut)
_STEPS = {
    (AUTH_COMMANDS, REGISTRAR_COMMANDS): ("authsvc", "authenticate"),
    (AUTH_COMMANDS, EDGE_REPLIES): ("authsvc", "authenticate"),
    (REGISTRAR_COMMANDS, REGISTRATIONS): ("registrar", "decide"),
    (REGISTRAR_COMMANDS, EDGE_REPLIES): ("registrar", "decide"),
    (REGISTRATIONS, EDGE_REPLIES): ("locator", "project and reply"),
}
"""Who works between two of a command's records, and at what."""
_ORDER = (AUTH_COMMANDS, REGISTRAR_COMMANDS, REGISTRATIONS, EDGE_REPLIES)

Attribute = str | int | bool
_Invite = tuple[str, str, int]
"""A call: Call-ID, the caller's tag, CSeq. One sent again after a 422 or a 503 has another CSeq only."""


class Span(NamedTuple):
    """One piece of work; times are milliseconds since 1970."""

    trace: str
    """32 hex digits."""
    id: str
    """16 hex digits."""
    parent: str
    """"" of the root."""
    service: str
    name: str
    began: int
    ended: int
    attributes: tuple[tuple[str, Attribute], ...] = ()
    error: str = ""


class _Method(msgspec.Struct):
    method: str = ""


class _Status(msgspec.Struct):
    status: int = 200


class _Seen(NamedTuple):
    at: int
    partition: int
    offset: int


class _Command(msgspec.Struct):
    first: int
    records: dict[str, _Seen] = {}
    method: str = ""
    status: int = 0
    answered: int | None = None


class _Call(msgspec.Struct):
    trace: str
    """The hash of the Call-ID."""
    events: list[CallEvent] = []
    ended: int | None = None


class Traces:
    """What has been read and is not told yet."""

    def __init__(self) -> None:
        self._commands: dict[str, _Command] = {}
        self._calls: dict[_Invite, _Call] = {}
        self.dropped = 0
        """Commands and calls of which too many were open."""

    def record(self, topic: str, record: Record, now: int) -> None:
        """One record of the topics of commands."""
        found = header(record.headers, "ce_id")
        if found is None:
            return
        id_ = found.decode("ascii", "replace")
        command = self._commands.get(id_)
        if command is None:
            if topic not in (AUTH_COMMANDS, REGISTRAR_COMMANDS):
                return  # it began before we did, or is none of an edge's
            command = self._commands[id_] = _Command(now)
            self.dropped += _bounded(self._commands)
        command.records.setdefault(topic, _Seen(record.timestamp, record.partition, record.offset))
        try:
            if topic == AUTH_COMMANDS and record.value:
                command.method = msgspec.json.decode(record.value, type=_Method).method
            elif topic == EDGE_REPLIES and record.value:
                told = msgspec.json.decode(record.value, type=_Status)
                command.status, command.answered = told.status, now
        except msgspec.DecodeError:
            return  # whoever consumes it says so

    def event(self, event: CallEvent, now: int) -> None:
        """One event of a call."""
        if not isinstance(event, Happened):
            return
        invite = (event.call_id, event.from_tag, event.cseq)
        call = self._calls.get(invite)
        if call is None:
            call = self._calls[invite] = _Call(_hex(event.call_id, 16))
            self.dropped += _bounded(self._calls)
        ends = isinstance(event, _ENDS)
        if len(call.events) < EVENTS or (ends and call.ended is None):  # without an end there is no trace
            call.events.append(event)
        if ends:
            call.ended = now

    def due(self, now: int) -> Iterator[Span]:
        """The spans of what has settled, which is then forgotten."""
        for id_, command in list(self._commands.items()):
            if command.answered is not None:
                due = now - command.answered >= SETTLED_MS
            else:
                due = now - command.first >= FORGOTTEN_MS
            if due:
                del self._commands[id_]
                yield from _of_command(id_, command)
        for invite, call in list(self._calls.items()):
            if call.ended is not None and now - call.ended >= SETTLED_MS:
                del self._calls[invite]
                yield from _of_call(call)


def _bounded(waiting: dict[str, _Command] | dict[_Invite, _Call]) -> int:
    if len(waiting) <= MOST:
        return 0
    del waiting[next(iter(waiting))]  # type: ignore[arg-type]
    return 1


def _hex(text: str, octets: int) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=octets).hexdigest()


def _of_command(id_: str, command: _Command) -> Iterator[Span]:
    trace, root = _hex(id_, 16), _hex(f"{id_} root", 8)
    there = [(topic, command.records[topic]) for topic in _ORDER if topic in command.records]
    began, ended = there[0][1].at, max(seen.at for _, seen in there)
    method = command.method or "REGISTER"
    error = "no answer" if command.answered is None else ""
    if command.status >= 500:
        error = str(command.status)
    attributes: list[tuple[str, Attribute]] = [("sip.method", method), ("ramal.command.id", id_)]
    if command.answered is not None:
        attributes.append(("sip.status_code", command.status))
    yield Span(trace, root, "", "edge", method, began, ended, tuple(attributes), error)
    for (topic, seen), (next_topic, after) in pairwise(there):
        service, name = _STEPS.get((topic, next_topic), ("edge", next_topic))
        read = (
            ("messaging.system", "kafka"), ("messaging.destination.name", topic),
            ("messaging.destination.partition.id", str(seen.partition)), ("messaging.kafka.offset", seen.offset),
        )  # fmt: skip
        yield Span(trace, _hex(f"{id_} {topic}", 8), root, service, name, seen.at, max(after.at, seen.at), read)


def _of_call(call: _Call) -> Iterator[Span]:
    once: dict[str, CallEvent] = {}
    for step in (step for event in call.events for step in steps(event)):
        once.setdefault(event_id(step), step)
    events = sorted(once.values(), key=lambda event: event.at)
    first, last = events[0], events[-1]
    attempt = next((event for event in events if isinstance(event, CallAttempted)), None)
    answer = next((event for event in events if isinstance(event, CallAnswered)), None)
    end = next(event for event in reversed(events) if isinstance(event, _ENDS))
    root = event_id(attempt or first)[:16]
    code = end.code if isinstance(end, CallFailed | CallCancelled | CallRedirected) else answer.code if answer else 0
    outcome = "answered" if answer else type(end).__name__.removeprefix("Call").lower()
    attributes: list[tuple[str, Attribute]] = [("ramal.call.outcome", outcome)]
    if code:
        attributes.append(("sip.status_code", code))
    error = str(end.code) if isinstance(end, CallFailed) and end.code >= 500 else ""
    yield Span(call.trace, root, "", "edge", "INVITE", first.at, last.at, tuple(attributes), error)
    reached = answer or end
    at = (("ramal.edge", reached.edge),)
    yield Span(call.trace, event_id(reached)[:16], root, "edge", "setup", first.at, max(first.at, reached.at), at)
    if answer:
        talk = (("ramal.edge", end.edge),)
        yield Span(call.trace, event_id(end)[:16], root, "edge", "talk", answer.at, max(answer.at, end.at), talk)
    finals = {event.branch: event for event in events if isinstance(event, BranchFinal)}
    for event in events:
        if isinstance(event, BranchStarted):
            final = finals.get(event.branch)
            told: list[tuple[str, Attribute]] = [("ramal.edge", event.edge), ("network.transport", event.transport)]
            if event.owner:
                told.append(("ramal.edge.owner", event.owner))
            if final:
                told.append(("sip.status_code", final.code))
            ended = max(event.at, final.at if final else reached.at)
            yield Span(call.trace, event_id(event)[:16], root, "edge", "branch", event.at, ended, tuple(told))
