"""The edge's core apart from what REGISTER means: methods, responses, Via, transactions, keep-alives, any bytes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.flow import Flow
from edge.core.pending import Pending
from edge.core.registration.completed import Completed
from sipcore.message import Request, Response
from sipcore.parser import StreamParser, parse_datagram
from sipcore.timers import SLACK
from sipcore.transaction import TIMER_J
from sipcore.transactions import Transactions
from tests.kit.edge import (
    NOW,
    TCP,
    UDP,
    answer,
    asked,
    core,
    credible,
    heard,
    receive,
    registered,
    request,
)

# --- other methods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri", ["sip:example.test", "sip:192.0.2.1:5060", "sip:localhost", "sips:edge.example.net;x=1"]
)
def test_r28_options_to_us_is_200_with_allow_supported_and_accept(uri: str) -> None:
    edge = core()
    response = answer(edge, request("OPTIONS", uri, contact=None))
    assert response.status == 200
    assert {"REGISTER", "OPTIONS", "INVITE", "BYE"} <= set(response.values("allow"))
    assert response.values("supported") == ["path", "outbound"]
    assert response.first("accept")
    assert not len(edge.registers)


def test_y02_options_to_us_with_max_forwards_0_is_answered_others_are_483() -> None:
    assert answer(core(), request("OPTIONS", "sip:example.test", max_forwards="0", contact=None)).status == 200
    assert answer(core(), request("OPTIONS", "sip:bob@example.test", max_forwards="0", contact=None)).status == 483


def test_r28_another_method_for_our_own_address_is_405_with_allow() -> None:
    response = answer(core(), request("REFER", "sip:example.test", contact=None))
    assert response.status == 405
    assert "REGISTER" in response.values("allow")


def test_y01_another_scheme_is_416() -> None:
    assert answer(core(), request("MESSAGE", "mailto:x@y", contact=None)).status == 416


def test_options_with_unknown_require_is_420() -> None:
    assert answer(core(), request("OPTIONS", "sip:example.test", "Require: nothing", contact=None)).status == 420


SMALL = b"OPTIONS sip:example.test SIP/2.0\r\nv:SIP/2.0/UDP a;rport\r\nf:sip:a\r\nt:sip:b\r\ni:1\r\nCSeq:1 OPTIONS\r\n"


@pytest.mark.parametrize(
    ("rows", "status"), [(b"", 200), (b"Require:a\r\n", 420), (b"Require:" + b",".join([b"a"] * 300) + b"\r\n", 420)]
)
def test_s02_an_answer_that_would_be_too_large_for_udp_goes_shortened(rows: bytes, status: int) -> None:
    data = SMALL + rows + b"\r\n"
    (send,) = receive(core(), data).sends
    assert len(send.data) <= 2 * len(data)
    assert send.data.startswith(b"SIP/2.0 %d " % status)


def test_p15_a_request_uri_may_end_in_a_semicolon() -> None:
    assert answer(core(), request("OPTIONS", "sip:example.test;", contact=None)).status == 200


@pytest.mark.parametrize("display", ['"a<b"', '"a<b>c"', '"\\"<sip:x@y>, "', '"a;b"', "a b"])
def test_y06_the_display_name_of_a_route_may_hold_anything(display: str) -> None:
    route = f"Route: {display} <sip:192.0.2.1:5060;lr>"
    assert answer(core(), request("OPTIONS", "sip:example.test", route, contact=None)).status == 200


def test_ack_is_dropped_by_name_and_cancel_of_nothing_is_481_after_half_a_second() -> None:
    edge = core()
    actions = receive(edge, request("ACK", "sip:bob@example.test", contact=None))
    assert not actions.sends
    assert actions.drops == {"unexpected-ack": 1}
    assert not receive(edge, request("CANCEL", "sip:bob@example.test", contact=None)).sends
    edge.on_time(NOW + 0.6)
    (response,) = heard(edge.take())
    assert response.status == 481


def test_t08_a_response_whose_via_is_not_ours_is_dropped() -> None:
    text = (
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n"
        "Call-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
    )
    edge = core()
    for host, name in (("203.0.113.5", "foreign-response"), ("192.0.2.1:5060", "unexpected-response")):
        actions = receive(edge, text.format(host).encode())
        assert not actions.sends
        assert actions.drops == {name: 1}


# --- Via and where responses go -----------------------------------------------------------------------------------


def test_t02_received_is_added_when_sent_by_is_a_name_or_differs() -> None:
    edge = core()
    for sent_by, received in (
        ("10.0.0.9", "198.51.100.7"),
        ("phone.example.test", "198.51.100.7"),
        ("198.51.100.7", None),
    ):
        assert answer(edge, request(via=f"SIP/2.0/UDP {sent_by};branch=z9hG4bK1")).via.received == received


def test_t03_rport_is_filled_received_always_added_and_the_source_answered() -> None:
    for via in (
        "SIP/2.0/UDP 198.51.100.7:5062;rport;branch=z9hG4bK1",
        "SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK1;RPORT",
        "SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK1;rport=9;received=203.0.113.1",
        "SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK1;rport;x=;rporty, SIP/2.0/UDP h2;branch=z9hG4bK2",
    ):
        actions = receive(core(), request(via=via))
        (response,) = heard(actions)
        assert (response.via.rport, response.via.received) == (40_000, "198.51.100.7")
        assert response.branch == "z9hG4bK1"
        assert len(response.vias) == 1 + via.count("h2")
        (send,) = actions.sends
        assert (send.flow, send.port) == (UDP, 40_000)


def test_18_2_2_without_rport_the_response_goes_to_the_sent_by_port_of_the_source() -> None:
    for via, port in (("10.0.0.9:5099", 5099), ("10.0.0.9", 5060)):
        (send,) = receive(core(), request(via=f"SIP/2.0/UDP {via};branch=z9hG4bK1")).sends
        assert (send.flow.remote_host, send.port) == ("198.51.100.7", port)


def test_t05_maddr_and_foreign_received_are_never_followed() -> None:
    via = "SIP/2.0/UDP 10.0.0.9:5070;branch=z9hG4bK1;maddr=224.0.1.75;received=203.0.113.9;ttl=16"
    (send,) = receive(core(), request(via=via)).sends
    assert (send.flow.remote_host, send.port) == ("198.51.100.7", 5070)
    assert b"received=203.0.113.9" not in send.data


def test_t07_the_rows_of_the_request_come_back_as_they_came() -> None:
    data = request(to='"Ål, \\"x\\"" <sip:alice@example.test>;z=1', from_="sip:alice@example.test;tag=9")
    text = receive(core(), data).sends[0].data.decode()
    assert 'To: "Ål, \\"x\\"" <sip:alice@example.test>;z=1;tag=' in text
    assert "From: sip:alice@example.test;tag=9\r\n" in text


def test_a_to_with_a_tag_keeps_it() -> None:
    assert answer(core(), request(to="<sip:alice@example.test>;tag=mine")).to.tag == "mine"


# --- server transactions ------------------------------------------------------------------------------------------

CREDIBLE = credible()


def test_x04_x02_a_retransmission_gets_nothing_while_pending_then_the_last_response() -> None:
    edge = core()
    command = asked(receive(edge, CREDIBLE))
    again = receive(edge, CREDIBLE, now=NOW + 0.5)
    assert (again.sends, again.publishes) == ([], [])
    edge.replied([registered(command)], NOW + 0.6)
    (first,) = edge.take().sends
    for later in (1.0, 31.0):
        actions = receive(edge, CREDIBLE, now=NOW + later)
        assert [(s.data, s.port) for s in actions.sends] == [(first.data, first.port)]
        assert not actions.publishes
        assert actions.drops == {"retransmission": 1}


def test_x03_matching_is_by_branch_without_case_sent_by_and_method() -> None:
    edge = core()
    asked(receive(edge, CREDIBLE))
    assert not receive(edge, CREDIBLE.replace(b"z9hG4bK-1", b"Z9HG4BK-1")).publishes
    assert receive(edge, CREDIBLE.replace(b"10.0.0.9:5062;b", b"10.0.0.9:5063;b")).publishes
    assert receive(edge, CREDIBLE.replace(b"z9hG4bK-1", b"z9hG4bK-2")).publishes


def test_x03_without_the_cookie_the_rules_of_rfc_2543() -> None:
    edge = core()
    old = CREDIBLE.replace(b"branch=z9hG4bK-1", b"branch=1")
    assert receive(edge, old).publishes
    assert not receive(edge, old).publishes
    assert receive(edge, old.replace(b"CSeq: 1", b"CSeq: 2")).publishes
    assert receive(edge, old.replace(b"tag=f1", b"tag=f2")).publishes


def test_x07_timer_j_is_32_s_on_udp() -> None:
    edge = core()
    command = asked(receive(edge, CREDIBLE))
    edge.replied([registered(command)], NOW)
    edge.on_time(NOW + TIMER_J - 0.1)
    assert len(edge.registers) == 1
    edge.on_time(NOW + TIMER_J + SLACK)
    assert len(edge.registers) == 0
    assert edge.next_timer() is None


def test_completed_transactions_are_bounded_and_the_oldest_goes_first() -> None:
    edge = core(max_completed=2)
    for number in range(3):
        data = CREDIBLE.replace(b"z9hG4bK-1", b"z9hG4bK-%d" % number)
        edge.replied([registered(asked(receive(edge, data)))], NOW)
        actions = edge.take()
    assert actions.drops == {"transaction-ended-early": 1}
    assert len(edge.registers) == 2
    assert receive(edge, CREDIBLE.replace(b"z9hG4bK-1", b"z9hG4bK-0")).publishes  # forgotten: a new one
    assert not receive(edge, CREDIBLE.replace(b"z9hG4bK-1", b"z9hG4bK-2")).publishes


def test_p25_completed_transactions_are_bounded_by_their_octets_too() -> None:
    layer = Transactions()
    completed = Completed(layer, 100, 1000)

    def answered(number: int, octets: int) -> int:
        message = parse_datagram(CREDIBLE.replace(b"z9hG4bK-1", b"z9hG4bK-%d" % number))
        assert isinstance(message, Request)
        server = layer.open_server(message, None, False, NOW)
        made = Response(200, "OK", ())
        made.body = bytes(octets - len(made.encode()) + len("0") - len(str(octets)))
        assert layer.respond(server, made, NOW)
        assert abs(len(server.sent) - octets) <= 3
        return completed.add(server)

    for number in range(5):
        assert answered(number, 400) == (number >= 2)
    assert len(layer) == 2
    layer.on_time(NOW + 33)
    assert len(layer) == 0
    assert answered(6, 1020) == 1
    assert len(layer) == 0


def test_a_reply_that_comes_twice_answers_once() -> None:
    edge = core()
    command = asked(receive(edge, CREDIBLE))
    edge.replied([registered(command), registered(command)], NOW)
    actions = edge.take()
    assert len(actions.sends) == 1
    assert actions.drops == {"late-reply": 1}


def test_a_finished_transaction_leaves_no_timer_of_its_deadline() -> None:
    pending = Pending[str, str](2.0)
    pending.wait("c", "REGISTER", NOW)
    assert pending.next_timer() == NOW + 2.0
    assert pending.take("c") == "REGISTER"
    assert pending.take("c") is None
    assert pending.next_timer() is None
    assert list(pending.overdue(NOW + 3)) == []


def test_what_nobody_waits_for_any_more_has_no_timer() -> None:
    over: list[str] = []
    pending = Pending[str, str](2.0, over.__contains__)
    for number, thing in enumerate(("a", "b")):
        pending.wait(thing, thing, NOW + number)
    over.append("a")
    assert pending.next_timer() == NOW + 3.0
    assert "a" not in pending
    assert list(pending.overdue(NOW + 3)) == ["b"]
    assert len(pending) == 0


# --- what is not SIP ----------------------------------------------------------------------------------------------


def test_t10_keepalive_on_udp_is_a_counted_silent_drop_and_on_streams_gets_a_crlf() -> None:
    edge = core()
    actions = receive(edge, b"\r\n\r\n")
    assert not actions.sends
    assert actions.drops == {"keepalive": 1}
    edge.stream(StreamParser().feed(b"\r\n\r\n"), TCP, NOW)
    assert [send.data for send in edge.take().sends] == [b"\r\n"]


BINDING = bytes.fromhex("0001 0000 2112A442 0102030405060708090a0b0c".replace(" ", ""))


def test_t11_a_stun_binding_request_is_answered_and_other_stun_ignored() -> None:
    edge = core()
    (send,) = receive(edge, BINDING).sends
    assert send.data[:2] == b"\x01\x01"
    assert send.data[4:20] == BINDING[4:]
    assert send.data[20:] == bytes.fromhex("002000080001") + (40_000 ^ 0x2112).to_bytes(2, "big") + bytes(
        a ^ b for a, b in zip(bytes([198, 51, 100, 7]), bytes.fromhex("2112A442"), strict=True)
    )
    six = Flow("udp", "2001:db8::1", 5060, "2001:db8::7", 40_000)
    (send,) = receive(edge, BINDING, six).sends
    assert len(send.data) == 44
    for other in (BINDING[:8], b"\x00\x11" + BINDING[2:], b"\0\0\0\0", BINDING[:4] + bytes(16), BINDING + b"x"):
        actions = receive(edge, other)
        assert not actions.sends
        assert actions.drops == {"stun-ignored": 1}


@given(st.binary(max_size=400))
def test_p26_any_bytes_raise_nothing(data: bytes) -> None:
    edge = core()
    edge.datagram(data, UDP, NOW)
    edge.stream(StreamParser().feed(data), TCP, NOW)
    assert not edge.take().publishes


@given(st.integers(0, len(CREDIBLE) - 1), st.binary(max_size=4), st.integers(0, 8))
def test_p26_a_damaged_register_raises_nothing_and_is_answered_or_dropped_by_name(
    at: int, octets: bytes, cut: int
) -> None:
    edge = core()
    edge.datagram(CREDIBLE[:at] + octets + CREDIBLE[at + cut :], UDP, NOW)
    edge.on_time(NOW + 2)
    actions = edge.take()
    assert actions.sends or actions.drops
    for send in actions.sends:
        assert send.data.startswith((b"SIP/2.0 4", b"SIP/2.0 5"))


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "rfc4475").glob("*.dat")), ids=lambda path: path.stem
)
def test_p02_torture_messages_raise_nothing_here_either(path: Path) -> None:
    edge = core()
    receive(edge, path.read_bytes())
    receive(edge, path.read_bytes(), TCP)
