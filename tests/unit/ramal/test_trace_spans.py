"""One trace a command of an edge, one trace a call: of the log's records alone, and of no person."""

import dataclasses
import json
from collections.abc import Sequence

import pytest

from events.topics import AUTH_COMMANDS, EDGE_REPLIES, REGISTRAR_COMMANDS, REGISTRATIONS
from events.wire import Happened
from ramal.tracing import spans
from ramal.tracing.otlp import body
from ramal.tracing.spans import Span, Traces
from tests.kit.call_stories import Story, missed, talk

NOW = 1_772_362_800_000


@dataclasses.dataclass
class Read:
    """A record as it is read."""

    timestamp: int
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = (("ce_id", b"id1"),)
    partition: int = 3
    offset: int = 77
    key: bytes | None = None


def registered(traces: Traces) -> None:
    method = json.dumps({"method": "REGISTER", "digest": {"username": "alice", "response": "s3cret"}}).encode()
    reply = json.dumps({"type": "ramal.Registered", "id": "id1"}).encode()
    traces.record(AUTH_COMMANDS, Read(NOW, method), 0)
    traces.record(REGISTRAR_COMMANDS, Read(NOW + 3), 1)
    # Topics are read beside each other: the reply may come before what it answers.
    traces.record(EDGE_REPLIES, Read(NOW + 12, reply), 2)
    traces.record(REGISTRATIONS, Read(NOW + 7), 3)


def tree(found: list[Span]) -> list[tuple[str, str, int, int]]:
    [root] = [span for span in found if not span.parent]
    assert {span.parent for span in found} <= {"", root.id}
    assert len({span.id for span in found}) == len(found)
    assert {len(span.trace) for span in found} == {32}
    assert {len(span.id) for span in found} == {16}
    assert len({span.trace for span in found}) == 1
    return [(span.service, span.name, span.began - root.began, span.ended - root.began) for span in found]


def test_a_register_is_one_trace_of_who_worked_from_when_to_when() -> None:
    traces = Traces()
    registered(traces)
    assert list(traces.due(spans.SETTLED_MS)) == []
    assert tree(list(traces.due(3 + spans.SETTLED_MS))) == [
        ("edge", "REGISTER", 0, 12),
        ("authsvc", "authenticate", 0, 3),
        ("registrar", "decide", 3, 7),
        ("locator", "project and reply", 7, 12),
    ]
    assert list(traces.due(10**9)) == []


def test_one_that_is_refused_or_not_answered_says_so() -> None:
    traces = Traces()
    traces.record(AUTH_COMMANDS, Read(NOW, b'{"method": "INVITE"}'), 0)
    traces.record(EDGE_REPLIES, Read(NOW + 2, b'{"status": 503, "reason": "Service Unavailable"}'), 0)
    traces.record(REGISTRAR_COMMANDS, Read(NOW, headers=[("ce_id", b"id2")]), 0)
    refused, authenticated, silent = traces.due(spans.FORGOTTEN_MS)
    assert (refused.name, refused.error) == ("INVITE", "503")
    assert authenticated.name == "authenticate"
    assert silent.error == "no answer"


def test_what_began_before_or_is_no_command_or_not_to_be_read_is_left_alone() -> None:
    traces = Traces()
    traces.record(REGISTRATIONS, Read(NOW), 0)
    traces.record(AUTH_COMMANDS, Read(NOW, headers=()), 0)
    traces.record(AUTH_COMMANDS, Read(NOW, b"\xff{", [("ce_id", b"id3")]), 0)
    [only] = traces.due(spans.FORGOTTEN_MS)
    assert only.error == "no answer"


def test_a_call_is_one_trace_whatever_the_order_and_repetition_of_its_events() -> None:
    story = talk("alice", "bob", call_id="c1", now=NOW)
    traces = Traces()
    for event in [*reversed(story.events), *story.events]:
        traces.event(event, 0)
    found = list(traces.due(spans.SETTLED_MS))
    names = [name for _, name, _, _ in tree(found)]
    assert names[:3] == ["INVITE", "setup", "talk"]
    assert dict(found[0].attributes)["ramal.call.outcome"] == "answered"
    assert "alice" not in repr(found)
    assert "bob" not in repr(found)


def test_a_missed_call_has_no_talk() -> None:
    traces = Traces()
    for event in missed("alice", "bob", call_id="c2", now=NOW).events:
        traces.event(event, 0)
    names = [span.name for span in traces.due(spans.SETTLED_MS)]
    assert names[:2] == ["INVITE", "setup"]
    assert "talk" not in names


def test_neither_call_id_nor_the_words_of_a_far_end_are_sent() -> None:
    call_id = "8a1f@198.51.100.7"
    story = Story(call_id=call_id, now=NOW).attempted().branch().wait(9).branch_ends(503, phrase="maria is away")
    traces = Traces()
    for event in story.failed(503, phrase="maria is away").events:
        traces.event(event, 0)
    traces.record(AUTH_COMMANDS, Read(NOW, b'{"method": "INVITE"}'), 0)
    traces.record(EDGE_REPLIES, Read(NOW + 2, b'{"status": 503, "reason": "maria is away"}'), 0)
    found = list(traces.due(spans.SETTLED_MS))
    said = body(found)
    assert [span.error for span in found if not span.parent] == ["503", "503"]
    assert b"198.51.100.7" not in said
    assert b"maria" not in said
    # Whoever has the Call-ID finds its trace: the id is that of the records' ce_traceparent.
    [trace] = {span.trace for span in found if span.name == "branch"}
    record = dict(Happened("ramal.CallFailed", "edge-1", "ab" * 16, call_id, NOW))
    assert record["ce_traceparent"][3:35] == trace.encode()


def test_an_invite_that_is_sent_again_under_its_call_id_is_a_call_of_its_own() -> None:
    first = Story(call_id="c3", now=NOW, cseq=1).attempted().branch().wait(20).failed(422)
    again = talk(call_id="c3", now=NOW + 50, cseq=2)
    traces = Traces()
    for event in [*first.events, *again.events]:
        traces.event(event, 0)
    found = list(traces.due(spans.SETTLED_MS))
    roots = [span for span in found if not span.parent]
    assert [(dict(root.attributes), root.ended - root.began) for root in roots] == [
        ({"ramal.call.outcome": "failed", "sip.status_code": 422}, 20),
        ({"ramal.call.outcome": "answered", "sip.status_code": 200}, 62_050),
    ]
    assert len({span.id for span in found}) == len(found)


def test_a_call_of_more_events_than_are_kept_still_ends() -> None:
    story = Story(call_id="c4", now=NOW).attempted().branch().answered()
    for refresh in range(spans.EVENTS):
        story.wait(1).refreshed(refresh)
    traces = Traces()
    for event in story.ended().events:
        traces.event(event, 0)
    assert [span.name for span in traces.due(spans.SETTLED_MS)] == ["INVITE", "setup", "talk", "branch"]


def test_no_more_is_kept_than_the_bound_and_what_is_dropped_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = Traces()
    monkeypatch.setattr(spans, "MOST", 10)
    for number in range(25):
        traces.record(AUTH_COMMANDS, Read(NOW, headers=[("ce_id", b"%d" % number)]), 0)
    assert traces.dropped == 15
    assert len([span for span in traces.due(spans.FORGOTTEN_MS) if not span.parent]) == 10


def test_spans_are_said_as_otlp_says_them_in_json() -> None:
    traces = Traces()
    registered(traces)
    said = json.loads(body(traces.due(10**6)))
    by_service = {
        resource["resource"]["attributes"][0]["value"]["stringValue"]: resource["scopeSpans"][0]["spans"]
        for resource in said["resourceSpans"]
    }
    assert set(by_service) == {"ramal-edge", "ramal-authsvc", "ramal-registrar", "ramal-locator"}
    [root] = by_service["ramal-edge"]
    assert root["startTimeUnixNano"] == f"{NOW}000000"
    assert root["kind"] == 2
    assert "parentSpanId" not in root
    [decide] = by_service["ramal-registrar"]
    assert decide["parentSpanId"] == root["spanId"]
    assert {"key": "messaging.kafka.offset", "value": {"intValue": "77"}} in decide["attributes"]
    assert b"s3cret" not in body(traces.due(10**6))
