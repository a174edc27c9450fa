"""SIP facts in, call events out: what is told, what is not, and never more than that (C03 to C10)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdr.decider import record
from cdr.state import State, call_of, evolve
from edge.core.call_events.telling import CODES, InDialog, Telling, Whereto
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
    CallTransferred,
    MessageAttempted,
    MessageDelivered,
    MessageFailed,
    event_id,
    steps,
)
from events.wire import Decoder, encode
from sipcore.causes import cause_of
from sipcore.message import Request, Response, respond
from sipcore.parser import parse_datagram
from sipcore.sdp import codecs

SDP = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.4\r\ns=secret\r\nc=IN IP4 192.0.2.4\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 111 8 0 101\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n"
)
decode: Decoder[CallEvent] = Decoder(CallEvent)
BOB = Whereto("sip:bob@192.0.2.9:5060", "192.0.2.9:5060", "udp")


def request(method: str = "INVITE", *rows: str, to_tag: str = "", from_tag: str = "ft", body: bytes = b"") -> Request:
    tag = f";tag={to_tag}" if to_tag else ""
    lines = [
        f"{method} sip:bob@example.test SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.4;branch=z9hG4bKa",
        f"From: <sip:alice@example.test>;tag={from_tag}",
        f"To: <sip:bob@example.test>{tag}",
        "Call-ID: c1",
        f"CSeq: 7 {method}",
        "User-Agent: Desk/1",
        *rows,
    ]
    if body:
        lines.append("Content-Type: application/sdp")
    parsed = parse_datagram("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
    assert isinstance(parsed, Request)
    return parsed


def answer(status: int, *headers: tuple[str, str], of: Request | None = None, body: bytes = b"") -> Response:
    more = [("Content-Type", "application/sdp")] if body else []
    return respond(of or request(), status, to_tag="tt", headers=[*headers, *more], body=body)


def telling(invite: Request | None = None, **more: Any) -> tuple[list[CallEvent], Telling]:
    events: list[CallEvent] = []
    told = Telling(
        events.append, "edge-1", invite or request(body=SDP), 100, "192.0.2.4:5060", "udp", **{"peer": False} | more
    )
    told.caller, told.callee, told.targets = "alice@example.test", "bob@example.test", (BOB.contact,)
    return events, told


def kinds(events: list[CallEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_c04_an_answered_call_is_told_in_its_steps_and_folds_to_its_record() -> None:
    events, told = telling()
    told.started(110, "b1", BOB)
    told.heard(120, "b1", answer(100))
    told.up(120, answer(100))
    ringing = answer(180)
    told.heard(130, "b1", ringing)
    told.up(130, ringing)
    ok = answer(200, ("Session-Expires", "1800;refresher=uac"), ("Server", "Soft/2"), body=SDP)
    told.heard(140, "b1", ok)
    told.up(140, ok)
    InDialog(events.append, "edge-2", request("BYE", "Reason: Q.850;cause=16", to_tag="tt"), 7, to_callee=True).came(
        900, 60, "tcp"
    )

    assert kinds(events) == ["CallAttempted", "CallRinging", "CallAnswered", "CallEnded"]
    assert [type(step).__name__ for event in events for step in steps(event)] == [
        "CallAttempted", "BranchStarted", "BranchProvisional", "CallRinging", "BranchFinal", "CallAnswered",
        "CallEnded",
    ]  # fmt: skip
    attempted, started = steps(events[0])
    assert attempted == CallAttempted(
        call_id="c1", from_tag="ft", cseq=7, at=100, edge="edge-1", from_uri="sip:alice@example.test",
        to_uri="sip:bob@example.test", dialled="sip:bob@example.test", caller="alice@example.test",
        callee="bob@example.test", targets=(BOB.contact,), source="192.0.2.4:5060", transport="udp", agent="Desk/1",
        codecs=("opus", "PCMA", "PCMU"),
    )  # fmt: skip
    assert isinstance(started, BranchStarted)
    assert (started.contact, started.source, started.at) == (BOB.contact, BOB.source, 110)
    answered = events[2]
    assert isinstance(answered, CallAnswered)
    assert (answered.contact, answered.agent, answered.session_expires) == (BOB.contact, "Soft/2", 1800)
    state = State()
    for event in events:
        state = evolve(state, decode(encode(event)))
    apart = State()
    for event in events:
        for step in steps(event):
            apart = evolve(apart, step)
    assert state == apart
    made = record(call_of(attempted), state)
    assert (made.outcome, made.rang, made.answered, made.ended, made.cause) == ("answered", 130, 140, 900, 16)
    assert (made.edges, made.hung_up, made.incomplete) == (("edge-1", "edge-2"), "caller", False)


@pytest.mark.parametrize("status", [401, 407])
def test_a_challenge_is_no_call(status: int) -> None:
    events, told = telling()
    told.up(120, answer(status))
    assert events == []


@pytest.mark.parametrize("status", [404, 480, 403, 484, 503])
def test_c10_a_final_response_before_any_branch_is_an_attempt_that_failed(status: int) -> None:
    events, told = telling()
    told.up(150, answer(status))
    assert kinds(events) == ["CallAttempted", "CallFailed"]
    assert isinstance(events[1], CallFailed)
    assert (events[1].code, events[1].at, events[0].at, events[1].branch) == (status, 150, 100, "")


def test_c05_the_answer_is_told_and_its_retransmissions_are_not() -> None:
    events, told = telling()
    told.started(110, "b1", BOB)
    for at in (140, 640):
        told.up(at, answer(200))
    (answered,) = [event for event in events if isinstance(event, CallAnswered)]
    assert answered.at == 140


def test_c08_two_phones_that_answer_are_two_dialogs() -> None:
    events, told = telling()
    told.started(110, "b1", BOB)
    told.started(110, "b2", BOB)
    for branch, tag in (("b1", "one"), ("b2", "other")):
        ok = respond(request(), 200, to_tag=tag)
        told.heard(140, branch, ok)
        told.up(140, ok)
    answers = [event for event in events if isinstance(event, CallAnswered)]
    assert [(each.to_tag, each.branch) for each in answers] == [("one", "b1"), ("other", "b2")]
    assert len({event_id(each) for each in answers}) == 2


def test_the_failure_names_the_branch_whose_answer_was_the_best() -> None:
    events, told = telling()
    busy, away = answer(486), answer(480)
    for branch, response in (("b1", away), ("b2", busy)):
        told.started(110, branch, BOB)
        told.heard(120, branch, response)
    told.up(130, busy)
    assert isinstance(events[-1], CallFailed)
    assert events[-1].branch == "b2"


def test_c04_a_call_has_one_end_kind() -> None:
    for statuses, expected in (
        ((486,), ["CallFailed"]),
        ((302,), ["CallRedirected"]),
        ((486, 603), ["CallFailed"]),
        ((200, 487), ["CallAnswered"]),
    ):
        events, told = telling()
        for status in statuses:
            told.up(140, answer(status, ("Contact", "<sip:x@elsewhere.test>")))
        assert kinds(events)[1:] == expected


def test_c09_a_487_after_the_callers_cancel_is_cancelled_and_any_other_failed() -> None:
    events, told = telling()
    told.up(140, answer(487))
    assert isinstance(events[-1], CallFailed)
    events, told = telling()
    told.cancelled(request("CANCEL", 'Reason: SIP;cause=200;text="x", Q.850;cause=31'))
    told.up(140, answer(487))
    cancelled = events[-1]
    assert isinstance(cancelled, CallCancelled)
    assert cancelled.cause == 31
    events, told = telling()
    told.cancelled(request("CANCEL"))
    told.up(140, answer(486))
    assert isinstance(events[-1], CallFailed)


def test_a_redirection_names_its_contacts() -> None:
    events, told = telling()
    told.up(140, answer(302, ("Contact", "<sip:a@x>, <sip:b@y>;q=0.5")))
    assert isinstance(events[-1], CallRedirected)
    assert events[-1].contacts == ("sip:a@x", "sip:b@y")


def test_ringing_is_told_once_and_each_provisional_of_a_branch_once() -> None:
    events, told = telling()
    told.started(110, "b1", BOB)
    for status in (180, 180, 183, *range(181, 200)):
        told.heard(120, "b1", answer(status))
        told.up(120, answer(status))
    assert kinds(events).count("CallRinging") == 1
    assert len([event for event in events if isinstance(event, BranchProvisional)]) == CODES


def test_rfc6228_199_is_no_ringing() -> None:
    events, told = telling()
    told.up(120, answer(199))
    assert events == []


def test_a_branch_that_we_end_is_told_as_ours() -> None:
    events, told = telling()
    told.started(110, "b1", BOB)
    late = answer(408)
    told.heard(990, "b1", late, ours=True)
    told.up(990, late)
    final, failed = events[1:]
    assert isinstance(final, BranchFinal)
    assert (final.code, final.ours) == (408, True)
    assert isinstance(failed, CallFailed)


def test_the_identity_that_a_peer_asserts_is_told_and_a_phones_is_not() -> None:
    claim = 'P-Asserted-Identity: "X" <sip:+4411@trunk.test>;x=y'
    for peer, expected in ((True, "sip:+4411@trunk.test"), (False, "")):
        events, told = telling(request("INVITE", claim), peer=peer)
        told.up(140, answer(486))
        assert isinstance(events[0], CallAttempted)
        assert (events[0].asserted, events[0].peer) == (expected, peer)


def test_a_message_is_told_and_its_text_never() -> None:
    for status, kind in ((202, MessageDelivered), (480, MessageFailed)):
        message = request("MESSAGE", body=b"the text")
        events, told = telling(message)
        told.started(110, "b1", BOB)
        told.heard(120, "b1", answer(status, of=message))
        told.up(120, answer(status, of=message))
        told.up(121, answer(status, of=message))
        assert [type(event) for event in events] == [MessageAttempted, kind]
        assert b"the text" not in b"".join(encode(event) for event in events)


def test_c07_no_sdp_and_no_credentials_are_in_any_event() -> None:
    invite = request("INVITE", 'Proxy-Authorization: Digest username="alice", response="feed"', body=SDP)
    events, told = telling(invite)
    told.started(110, "b1", BOB)
    told.up(140, answer(200, body=SDP))
    text = b"".join(encode(event) for event in events)
    assert b"secret" not in text
    assert b"feed" not in text
    assert b"m=audio" not in text


@pytest.mark.parametrize(("to_callee", "by"), [(True, "caller"), (False, "callee")])
def test_c07_a_bye_says_who_hung_up_and_names_the_call_by_its_token(to_callee: bool, by: str) -> None:
    bye = request("BYE", to_tag="tt" if to_callee else "ft", from_tag="ft" if to_callee else "tt")
    events: list[CallEvent] = []
    InDialog(events.append, "edge-2", bye, 41, to_callee=to_callee).came(900, 600, "tls")
    (ended,) = events
    assert isinstance(ended, CallEnded)
    assert (ended.by, ended.from_tag, ended.to_tag, ended.cseq, ended.begun) == (by, "ft", "tt", 41, 600)
    uris = ("sip:alice@example.test", "sip:bob@example.test")
    assert (ended.caller_uri, ended.callee_uri) == (uris if to_callee else uris[::-1])


@pytest.mark.parametrize(("rows", "seconds"), [((), 0), ((("Session-Expires", "90"),), 90)])
def test_c12_a_refresh_is_told_by_its_2xx_with_the_session_timer_from_then_on(
    rows: tuple[tuple[str, str], ...], seconds: int
) -> None:
    events: list[CallEvent] = []
    update = request("UPDATE", to_tag="tt")
    told = InDialog(events.append, "edge-1", update, 7, to_callee=True)
    told.came(500, 0, "udp")
    told.up(510, answer(491, ("Session-Expires", "90"), of=update))
    assert events == []
    told.up(510, answer(200, *rows, of=update))
    assert events == [
        CallRefreshed(call_id="c1", from_tag="ft", cseq=7, at=510, edge="edge-1", to_tag="tt", by="caller", refresh=7,
                      session_expires=seconds)
    ]  # fmt: skip


def test_a_refer_that_is_accepted_is_a_transfer() -> None:
    events: list[CallEvent] = []
    refer = request("REFER", "Refer-To: <sip:carol@example.test?Replaces=x>", to_tag="ft", from_tag="tt")
    told = InDialog(events.append, "edge-1", refer, 7, to_callee=False)
    told.up(510, answer(603, of=refer))
    assert events == []
    told.up(510, answer(202, of=refer))
    assert isinstance(events[0], CallTransferred)
    assert (events[0].by, events[0].target) == ("callee", "sip:carol@example.test?Replaces=x")


def test_p24_whatever_stands_in_a_message_the_events_are_readable() -> None:
    rows = [
        "INVITE sip:b%0d%0aob@example.test SIP/2.0", "Via: SIP/2.0/UDP 192.0.2.4;branch=z9hG4bKa",
        'From: "\xff" <sip:alice@example.test>;tag=\xfft', "To: <sip:bob@example.test>", "Call-ID: \xfe@x",
        "CSeq: 7 INVITE", "User-Agent: \xff\x01\x1b[2J" + "x" * 4000, 'Reason: Q.850;cause="', "", "",
    ]  # fmt: skip
    message = parse_datagram("\r\n".join(rows).encode("latin-1"))
    assert isinstance(message, Request)
    events, told = telling(message)
    told.up(120, respond(message, 480, "No\x1b[2J way"))
    for event in events:
        text = encode(event).decode()
        assert decode(text.encode()) == event
        assert "\x1b" not in text
        assert "\\u001b" not in text
    assert isinstance(events[0], CallAttempted)
    assert len(events[0].agent) == 255
    assert cause_of(message).q850 == 0


@given(st.binary(max_size=400))
def test_any_body_gives_a_few_short_names(body: bytes) -> None:
    names = codecs(body)
    assert len(names) <= 16
    assert all(0 < len(name) <= 32 and name.isascii() for name in names)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (SDP, ("opus", "PCMA", "PCMU")),
        (
            b"m=audio 0 RTP/AVP 0 0 8\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n",
            ("PCMU", "PCMA", "VP8"),
        ),
        (b"m=audio 1 RTP/AVP 97\r\n", ()),
        (b"m=audio 1/2 RTP/SAVP 9 13\na=rtpmap:13 CN/8000\n", ("G722",)),
        (b"m=application 9 x 8\r\n", ()),
        (b"", ()),
        (b"m=audio 1 RTP/AVP " + b"8 " * 30_000, ("PCMA",)),
    ],
)
def test_codecs_are_named_in_the_order_of_preference(body: bytes, expected: tuple[str, ...]) -> None:
    assert codecs(body) == expected


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ("Q.850;cause=16;text=\"x;y,z\"", 16),
        ('SIP;cause=200, q.850 ;cause=31', 31),
        ("SIP;cause=486", 0),
        ("Q.850;cause=999", 0),
        ("Q.850;cause=", 0),
        ('Q.850;cause=16;text="', 0),
    ],
)  # fmt: skip
def test_rfc3326_the_q850_cause_is_read(value: str, cause: int) -> None:
    assert cause_of(request("BYE", f"Reason: {value}", to_tag="tt")).q850 == cause
