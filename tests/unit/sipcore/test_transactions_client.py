"""sipcore.transactions: client transactions, by a virtual clock."""

import pytest

from sipcore.message import Request, Row, row
from sipcore.transaction import State
from sipcore.transactions import ResponseMatch, Transactions
from tests.kit.transactions import (
    BRANCH,
    PEER,
    calling,
    is_empty,
    names,
    request,
    response,
    run,
    sent,
)


def ring(layer: Transactions, status: int, now: float = 0.0, method: str = "INVITE", tag: str = "t1") -> ResponseMatch:
    return layer.response(BRANCH, response(request(method), status, tag), now)[0]


def test_x05_timer_a_doubles_until_timer_b_ends_it() -> None:
    layer, client = calling()
    happened = run(layer, 100.0)
    assert happened == [*((at, "INVITE") for at in (0.5, 1.5, 3.5, 7.5, 15.5, 31.5)), (32.0, "timeout")]
    assert client.state is State.TERMINATED
    assert is_empty(layer)


def test_x05_on_streams_nothing_is_repeated_and_timer_b_counts_all_the_same() -> None:
    layer, _ = calling(reliable=True)
    assert run(layer, 100.0) == [(32.0, "timeout")]
    assert is_empty(layer)


def test_x05_a_provisional_response_ends_timers_a_and_b() -> None:
    layer, client = calling()
    assert ring(layer, 180, 0.2) is ResponseMatch.PASS
    assert run(layer, 1000.0) == []
    assert client.state is State.PROCEEDING
    assert [ring(layer, status, 1000.0) for status in (100, 183, 180)] == [ResponseMatch.PASS] * 3


def test_x06_timer_e_doubles_up_to_t2_until_timer_f_ends_it() -> None:
    layer, _ = calling("BYE")
    happened = run(layer, 100.0)
    times = (0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)
    assert happened == [*((at, "BYE") for at in times), (32.0, "timeout")]
    assert is_empty(layer)


def test_x06_after_a_provisional_response_timer_e_is_t2() -> None:
    layer, _ = calling("OPTIONS")
    assert run(layer, 0.6) == [(0.5, "OPTIONS")]
    assert ring(layer, 100, 0.7, "OPTIONS") is ResponseMatch.PASS
    assert run(layer, 10.0) == [(1.5, "OPTIONS"), (5.5, "OPTIONS"), (9.5, "OPTIONS")]
    assert run(layer, 32.0)[-1] == (32.0, "timeout")


def test_x06_on_streams_there_is_timer_f_alone() -> None:
    layer, _ = calling("BYE", reliable=True)
    assert run(layer, 100.0) == [(32.0, "timeout")]


def test_x05_a_late_wake_up_sends_once_not_all_that_it_missed() -> None:
    layer, _ = calling()
    assert layer.on_time(9.0) == []
    assert names(layer) == ["INVITE"]
    assert layer.next_timer() == 10.0


def test_x07_timer_k_absorbs_for_5_s_on_udp_and_not_at_all_on_streams() -> None:
    layer, _ = calling("BYE")
    assert ring(layer, 200, 1.0, "BYE") is ResponseMatch.PASS
    assert ring(layer, 200, 5.9, "BYE") is ResponseMatch.ABSORBED
    assert run(layer, 100.0) == []
    assert ring(layer, 200, 100.0, "BYE") is ResponseMatch.UNMATCHED
    assert is_empty(layer)

    layer, _ = calling("BYE", reliable=True)
    assert ring(layer, 200, 1.0, "BYE") is ResponseMatch.PASS
    assert len(layer) == 0
    assert ring(layer, 200, 1.0, "BYE") is ResponseMatch.UNMATCHED


def test_x07_timer_d_acknowledges_repeats_for_32_s_on_udp() -> None:
    layer, client = calling()
    assert ring(layer, 486, 1.0) is ResponseMatch.PASS
    assert names(layer) == ["ACK"]
    assert client.state is State.COMPLETED
    assert ring(layer, 486, 32.9) is ResponseMatch.ABSORBED
    assert names(layer) == ["ACK"]
    assert ring(layer, 200, 32.9) is ResponseMatch.ABSORBED
    assert ring(layer, 180, 32.9) is ResponseMatch.ABSORBED
    assert names(layer) == []
    assert layer.on_time(32.9) == []
    assert len(layer) == 1
    assert run(layer, 100.0) == []
    assert is_empty(layer)


def test_x07_on_streams_timer_d_is_0() -> None:
    layer, _ = calling(reliable=True)
    assert ring(layer, 486, 1.0) is ResponseMatch.PASS
    assert names(layer) == ["ACK"]
    assert len(layer) == 0


@pytest.mark.parametrize("reliable", [False, True])
def test_x09_accepted_passes_2xx_up_for_timer_m_and_nothing_else(reliable: bool) -> None:
    layer, client = calling(reliable=reliable)
    assert ring(layer, 200, 1.0) is ResponseMatch.PASS
    assert client.state is State.ACCEPTED
    assert ring(layer, 200, 2.0) is ResponseMatch.PASS
    assert ring(layer, 200, 2.0, tag="t2") is ResponseMatch.PASS
    assert ring(layer, 486, 2.0) is ResponseMatch.ABSORBED
    assert ring(layer, 180, 2.0) is ResponseMatch.ABSORBED
    assert names(layer) == []
    layer.on_time(32.9)
    assert ring(layer, 200, 32.9) is ResponseMatch.PASS
    assert run(layer, 100.0) == []
    assert ring(layer, 200, 100.0) is ResponseMatch.UNMATCHED
    assert is_empty(layer)


def test_x11_the_ack_of_a_refusal_goes_the_way_of_its_invite() -> None:
    layer = Transactions()
    rows = ("Route: <sip:one;lr>, <sip:two;lr>", "Route: <sip:three;lr>", "Require: 100rel", "Contact: <sip:a@a>")
    below = ", SIP/2.0/UDP phone:5062;branch=z9hG4bKphone"
    layer.open_client(request("INVITE", *rows, below=below), PEER, False, 0.0)
    sent(layer)
    invite = request("INVITE", *rows, below=below)
    heard, client = layer.response("Z9HG4BKABC", response(invite, 486, "callee"), 1.0)
    assert heard is ResponseMatch.PASS
    assert client is not None
    assert client.branch == BRANCH
    ((where, data, id_),) = layer.take_sends()
    assert (where, id_) == (PEER, "")
    layer.response(BRANCH, response(invite, 486, "callee"), 1.5)
    assert layer.take_sends() == [(PEER, data, "")]

    layer = Transactions()
    layer.open_client(invite, PEER, False, 0.0)
    sent(layer)
    layer.response(BRANCH, response(invite, 486, "callee"), 1.0)
    (ack,) = sent(layer)
    assert isinstance(ack, Request)
    assert (ack.method, ack.uri, ack.body) == ("ACK", invite.uri, b"")
    assert [(row.name, row.value) for row in ack.rows] == [
        ("via", "SIP/2.0/UDP edge.example:5060;branch=z9hG4bKabc;rport"),
        ("route", "<sip:one;lr>, <sip:two;lr>"),
        ("route", "<sip:three;lr>"),
        ("from", "A <sip:a@a>;tag=f1"),
        ("to", "<sip:b@b>;tag=callee"),
        ("call-id", "call-1"),
        ("cseq", "7 ACK"),
        ("max-forwards", "70"),
        ("content-length", "0"),
    ]


def test_x13_the_cancel_waits_for_a_provisional_response() -> None:
    layer, client = calling()
    layer.cancel(client, 0.1)
    assert client.cancelled
    assert names(layer) == []
    assert run(layer, 0.5) == [(0.5, "INVITE")]
    assert ring(layer, 100, 0.6) is ResponseMatch.PASS
    assert names(layer) == ["CANCEL"]
    layer.cancel(client, 0.7)
    assert ring(layer, 180, 0.8) is ResponseMatch.PASS
    assert names(layer) == []


def test_x13_the_cancel_is_its_invite_without_extensions_and_has_one_via() -> None:
    layer = Transactions()
    rows = ("Route: <sip:one;lr>", "Require: 100rel", "Proxy-Require: x", "Supported: y", "Via: SIP/2.0/UDP p;branch=q")
    client = layer.open_client(request("INVITE", *rows), PEER, False, 0.0)
    layer.response(BRANCH, response(request("INVITE", *rows), 180, "callee"), 0.1)
    sent(layer)
    layer.cancel(client, 0.2, [row("Reason", 'SIP;cause=200;text="Call completed elsewhere"')])
    ((where, data, id_),) = layer.take_sends()
    assert (where, id_) == (PEER, BRANCH)
    assert data == (
        b"CANCEL sip:b@192.0.2.9:5070;x=1 SIP/2.0\r\n"
        b"Via: SIP/2.0/UDP edge.example:5060;branch=z9hG4bKabc;rport\r\n"
        b"Route: <sip:one;lr>\r\n"
        b"From: A <sip:a@a>;tag=f1\r\n"
        b"To: <sip:b@b>\r\n"
        b"Call-ID: call-1\r\n"
        b"CSeq: 7 CANCEL\r\n"
        b"Max-Forwards: 70\r\n"
        b'Reason: SIP;cause=200;text="Call completed elsewhere"\r\n'
        b"Content-Length: 0\r\n\r\n"
    )


def test_x13_the_cancel_is_repeated_and_answered_as_a_transaction_of_its_own() -> None:
    layer, client = calling()
    ring(layer, 180, 0.0)
    layer.cancel(client, 0.0)
    assert names(layer) == ["CANCEL"]
    assert len(layer) == 2
    assert run(layer, 1.6) == [(0.5, "CANCEL"), (1.5, "CANCEL")]
    assert ring(layer, 200, 1.7, "CANCEL") is ResponseMatch.ABSORBED
    assert ring(layer, 200, 1.8, "CANCEL") is ResponseMatch.ABSORBED
    assert ring(layer, 487, 2.0) is ResponseMatch.PASS
    assert names(layer) == ["ACK"]
    assert run(layer, 100.0) == []
    assert is_empty(layer)


def test_x13_64_t1_after_the_cancel_the_invite_has_timed_out() -> None:
    layer, client = calling()
    ring(layer, 180, 0.0)
    layer.cancel(client, 100.0)
    happened = run(layer, 200.0)
    assert [each for each in happened if each[1] != "CANCEL"] == [(132.0, "timeout")]
    assert is_empty(layer)
    assert ring(layer, 487, 200.0) is ResponseMatch.UNMATCHED


def test_x13_nothing_but_a_pending_invite_is_cancelled() -> None:
    layer, client = calling("OPTIONS")
    layer.cancel(client, 0.1)
    assert ring(layer, 100, 0.2, "OPTIONS") is ResponseMatch.PASS
    assert names(layer) == []
    for status in (200, 486):
        layer, client = calling()
        ring(layer, status, 0.1)
        sent(layer)
        layer.cancel(client, 0.2)
        assert not client.cancelled
        assert names(layer) == []


def test_x13_an_invite_that_is_never_heard_of_is_never_cancelled_either() -> None:
    layer, client = calling()
    layer.cancel(client, 0.1)
    assert {name for _, name in run(layer, 100.0)} == {"INVITE", "timeout"}
    assert is_empty(layer)


def test_x15_a_200_that_crosses_the_cancel_wins() -> None:
    layer, client = calling()
    ring(layer, 180, 0.1)
    layer.cancel(client, 0.2)
    assert names(layer) == ["CANCEL"]
    assert ring(layer, 200, 0.3) is ResponseMatch.PASS
    assert client.state is State.ACCEPTED
    assert ring(layer, 200, 0.4, "CANCEL") is ResponseMatch.ABSORBED
    assert run(layer, 100.0) == []
    assert is_empty(layer)


def test_x15_a_200_without_any_1xx_makes_the_cancel_pointless() -> None:
    layer, client = calling()
    layer.cancel(client, 0.1)
    assert ring(layer, 200, 0.2) is ResponseMatch.PASS
    assert names(layer) == []


def test_what_cannot_be_sent_fails_at_once_and_once() -> None:
    for method in ("INVITE", "BYE"):
        layer, client = calling(method)
        assert layer.failed("z9hg4bkother", 0.1) is None
        assert layer.failed(BRANCH, 0.1) is client
        assert layer.failed(BRANCH, 0.1) is None
        assert client.user == "user"
        layer.take_sends()
        assert client.user is None
        assert ring(layer, 200, 0.2, method) is ResponseMatch.UNMATCHED
        assert is_empty(layer)


def test_a_user_is_let_go_once_he_is_told_of_nothing_more() -> None:
    for status, method, kept in ((486, "INVITE", None), (200, "INVITE", "user"), (200, "BYE", None)):
        layer, client = calling(method)
        ring(layer, status, 0.1, method)
        assert client.user == "user"
        layer.take_sends()
        assert client.user == kept
        # A retransmission of what has been told is no news; a 2xx to INVITE may be another phone's.
        again = ResponseMatch.PASS if kept else ResponseMatch.ABSORBED
        assert ring(layer, status, 0.2, method) is again


def test_a_cancel_that_cannot_be_sent_fails_its_invite() -> None:
    layer, client = calling()
    ring(layer, 180, 0.1)
    layer.cancel(client, 0.2)
    assert layer.failed(BRANCH, 0.3) is client
    layer.take_sends()
    assert is_empty(layer)


def test_what_fails_after_its_final_response_is_no_second_result() -> None:
    for status, method in ((486, "INVITE"), (200, "INVITE"), (200, "BYE")):
        layer, _ = calling(method)
        ring(layer, status, 0.1, method)
        layer.take_sends()
        assert layer.failed(BRANCH, 0.2) is None
        assert run(layer, 100.0) == []
        layer.take_sends()
        assert is_empty(layer)


def test_a_forgotten_client_hears_nothing_more() -> None:
    layer, client = calling()
    layer.forget_client(client)
    layer.forget_client(client)
    assert run(layer, 100.0) == []
    assert ring(layer, 200, 0.1) is ResponseMatch.UNMATCHED
    layer.take_sends()
    assert is_empty(layer)


def test_a_response_matches_by_branch_and_one_to_a_cancel_by_that() -> None:
    layer, client = calling()
    assert layer.response("z9hg4bkabd", response(request(), 200), 0.1) == (ResponseMatch.UNMATCHED, None)
    assert ring(layer, 200, 0.1, "CANCEL") is ResponseMatch.UNMATCHED
    assert ring(layer, 180, 0.1, "BYE") is ResponseMatch.PASS
    assert client.state is State.PROCEEDING
    assert ring(layer, 200, 0.1) is ResponseMatch.PASS


def test_a_branch_in_use_and_a_request_that_cannot_be_encoded_are_refused_without_a_trace() -> None:
    layer, _ = calling()
    with pytest.raises(ValueError, match="branch"):
        layer.open_client(request("BYE"), PEER, False, 0.0)
    layer = Transactions()
    broken = Request("INVITE", "sip:b", [Row("via", "Via", "SIP/2.0/UDP h;branch=z9hG4bKx"), Row("x", "X", "a\r\nb")])
    with pytest.raises(ValueError, match="CR"):
        layer.open_client(broken, PEER, False, 0.0)
    assert is_empty(layer)
    assert layer.take_sends() == []


def test_the_branch_is_read_however_the_top_via_is_written() -> None:
    for via in (
        "SIP/2.0/UDP h;branch=z9hG4bKabc",
        "SIP/2.0/UDP h;rport;branch=z9hG4bKabc, SIP/2.0/UDP g;branch=z9hG4bKlow",
        "SIP/2.0/UDP h ; branch = z9hG4bKabc;rport",
    ):
        invite = request()
        client = Transactions().open_client(
            Request(invite.method, invite.uri, [Row("via", "Via", via), *invite.rows[1:]]), PEER, False, 0.0
        )
        assert client.branch == BRANCH


def test_the_request_is_kept_until_the_sends_after_the_final_response_are_taken() -> None:
    layer, client = calling()
    ring(layer, 180, 0.1)
    layer.take_sends()
    assert client.request.uri == request().uri
    ring(layer, 200, 0.2)
    assert client.request.uri == request().uri
    layer.take_sends()
    assert client.request.rows == ()
    assert client.user == "user"
