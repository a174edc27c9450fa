"""sipcore.transactions: server transactions, by a virtual clock."""

import pytest

from sipcore.message import Request, respond
from sipcore.transaction import State
from sipcore.transactions import RequestMatch, Server, Transactions
from tests.kit.transactions import PEER, called, is_empty, names, request, run, sent


def answer(layer: Transactions, server: Server, status: int, now: float = 0.0, tag: str = "t1") -> bool:
    return layer.respond(server, respond(request(server.method), status, to_tag=tag), now)


def find(layer: Transactions, message: Request, now: float = 0.0) -> RequestMatch:
    return layer.find(message, now)[0]


def test_x02_a_request_without_final_response_gets_100_after_3_5_s_and_not_before() -> None:
    for reliable in (False, True):
        layer, server = called("OPTIONS", reliable=reliable)
        assert not answer(layer, server, 100, 1.0)
        assert run(layer, 30.0) == [(3.5, "100")]
        assert find(layer, request("OPTIONS"), 30.0) is RequestMatch.RETRANSMISSION
        assert names(layer) == ["100"]
        assert answer(layer, server, 200, 30.5)
        assert names(layer) == ["200"]


def test_x02_no_1xx_and_no_408_leaves_for_a_request_other_than_invite() -> None:
    layer, server = called("OPTIONS")
    for status in (100, 180, 183, 199):
        assert not answer(layer, server, status)
    assert server.state is State.TRYING
    assert not answer(layer, server, 408, 31.0)
    assert names(layer) == []
    assert layer.pending == 0
    assert not answer(layer, server, 500, 31.0)
    assert find(layer, request("OPTIONS"), 31.0) is RequestMatch.RETRANSMISSION
    assert run(layer, 100.0) == []
    assert is_empty(layer)


def test_x02_a_408_after_the_100_ends_in_silence_too() -> None:
    layer, server = called("OPTIONS")
    assert run(layer, 5.0) == [(3.5, "100")]
    assert not answer(layer, server, 408, 31.0)
    assert find(layer, request("OPTIONS"), 31.0) is RequestMatch.RETRANSMISSION
    assert names(layer) == []


@pytest.mark.parametrize("reliable", [False, True])
def test_x02_a_request_that_is_never_answered_ends_in_silence_after_64_t1(reliable: bool) -> None:
    layer, server = called("OPTIONS", reliable=reliable)
    assert run(layer, 31.9) == [(3.5, "100")]
    assert layer.pending == 1
    assert run(layer, 32.0) == []
    assert layer.pending == 0
    assert not answer(layer, server, 200, 32.1)
    assert run(layer, 100.0) == []
    assert is_empty(layer)


def test_x02_the_100_carries_the_requests_via_and_timestamp() -> None:
    layer = Transactions()
    layer.open_server(request("MESSAGE", "Timestamp: 54", below=";received=192.0.2.1"), PEER, False, 0.0)
    layer.on_time(3.5)
    (trying,) = sent(layer)
    assert trying.via.received == "192.0.2.1"
    assert trying.first("timestamp") == "54"
    assert trying.to.tag is None


def test_x03_a_request_matches_by_branch_without_case_sent_by_and_method() -> None:
    layer, server = called()
    assert layer.find(request(branch="Z9HG4BKABC"), 0.0) == (RequestMatch.RETRANSMISSION, server)
    assert layer.find(request(branch="z9hG4bKabd"), 0.0) == (RequestMatch.NEW, None)
    assert layer.find(request("OPTIONS"), 0.0) == (RequestMatch.NEW, None)
    assert layer.find(request("CANCEL"), 0.0) == (RequestMatch.INVITE, server)
    assert layer.find(request("CANCEL", branch="z9hG4bKabd"), 0.0) == (RequestMatch.NEW, None)


def test_x03_without_the_cookie_an_ack_is_that_of_the_response_whose_to_tag_it_has() -> None:
    layer = Transactions()
    invite = request(branch="1")
    server = layer.open_server(invite, PEER, False, 0.0)
    assert find(layer, request(branch="1")) is RequestMatch.RETRANSMISSION
    assert find(layer, request(branch="1", cseq=8)) is RequestMatch.NEW
    assert layer.find(request("CANCEL", branch="1"), 0.0) == (RequestMatch.INVITE, server)
    layer.respond(server, respond(invite, 486, to_tag="mine"), 0.0)
    assert find(layer, request("ACK", branch="1", to="<sip:b@b>;tag=another")) is RequestMatch.NEW
    assert repr(server) == "<Server INVITE Completed>"
    assert find(layer, request("ACK", branch="1", to="<sip:b@b>;tag=mine")) is RequestMatch.ACKED
    assert repr(server) == "<Server INVITE Confirmed>"


def test_x04_a_retransmission_gets_the_last_response_again_and_nothing_before_the_first() -> None:
    layer, server = called()
    assert find(layer, request()) is RequestMatch.RETRANSMISSION
    assert names(layer) == []
    for status in (100, 180, 183, 486):
        assert answer(layer, server, status)
        assert names(layer) == [str(status)]
        assert find(layer, request()) is RequestMatch.RETRANSMISSION
        assert names(layer) == [str(status)]
    layer, server = called("BYE")
    assert find(layer, request("BYE")) is RequestMatch.RETRANSMISSION
    assert names(layer) == []
    answer(layer, server, 200)
    ((origin, first, id_),) = layer.take_sends()
    assert (origin, id_) == (PEER, "")
    find(layer, request("BYE"))
    assert layer.take_sends() == [(PEER, first, "")]


def test_x07_a_refusal_is_repeated_by_timer_g_until_timer_h() -> None:
    layer, server = called()
    answer(layer, server, 486)
    assert names(layer) == ["486"]
    times = (0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)
    assert run(layer, 100.0) == [(at, "486") for at in times]
    assert is_empty(layer)


def test_x07_an_ack_ends_timer_g_and_further_ones_are_absorbed_for_5_s() -> None:
    layer, server = called()
    answer(layer, server, 486)
    sent(layer)
    assert run(layer, 1.0) == [(0.5, "486")]
    assert find(layer, request("ACK"), 1.0) is RequestMatch.ACKED
    assert server.state is State.CONFIRMED
    layer.on_time(5.9)
    assert find(layer, request("ACK"), 5.9) is RequestMatch.ACKED
    assert find(layer, request(), 5.9) is RequestMatch.RETRANSMISSION
    assert names(layer) == []
    assert run(layer, 100.0) == []
    assert is_empty(layer)


def test_x07_on_streams_a_refusal_is_not_repeated_and_timer_i_is_0() -> None:
    layer, server = called(reliable=True)
    answer(layer, server, 486)
    assert names(layer) == ["486"]
    assert run(layer, 20.0) == []
    assert len(layer) == 1
    assert find(layer, request("ACK"), 20.0) is RequestMatch.ACKED
    assert len(layer) == 0
    layer, server = called(reliable=True)
    answer(layer, server, 486)
    sent(layer)
    assert run(layer, 100.0) == []
    assert is_empty(layer)


def test_x07_timer_j_absorbs_for_32_s_on_udp_and_not_at_all_on_streams() -> None:
    layer, server = called("BYE")
    assert answer(layer, server, 200, 1.0)
    assert not answer(layer, server, 500, 1.0)
    layer.on_time(32.9)
    assert find(layer, request("BYE"), 32.9) is RequestMatch.RETRANSMISSION
    assert names(layer) == ["200", "200"]
    assert run(layer, 100.0) == []
    assert find(layer, request("BYE"), 100.0) is RequestMatch.NEW
    assert is_empty(layer)
    layer, server = called("BYE", reliable=True)
    assert answer(layer, server, 200, 1.0)
    assert len(layer) == 0
    assert find(layer, request("BYE"), 1.0) is RequestMatch.NEW


@pytest.mark.parametrize("reliable", [False, True])
def test_x08_accepted_absorbs_invites_and_forwards_each_2xx_for_timer_l(reliable: bool) -> None:
    layer, server = called(reliable=reliable)
    answer(layer, server, 180)
    assert answer(layer, server, 200, 1.0)
    assert names(layer) == ["180", "200"]
    assert server.state is State.ACCEPTED
    assert layer.pending == 0
    assert find(layer, request(), 2.0) is RequestMatch.RETRANSMISSION
    assert run(layer, 30.0) == []
    assert answer(layer, server, 200, 30.0)
    assert answer(layer, server, 200, 30.0, tag="t2")
    assert not answer(layer, server, 486, 30.0)
    assert not answer(layer, server, 180, 30.0)
    assert names(layer) == ["200", "200"]
    layer.on_time(32.9)
    assert answer(layer, server, 200, 32.9)
    assert names(layer) == ["200"]
    assert run(layer, 100.0) == []
    assert not answer(layer, server, 200, 100.0)
    sent(layer)
    assert is_empty(layer)


def test_x08_an_ack_with_the_branch_of_an_accepted_invite_is_for_the_user() -> None:
    layer, server = called()
    answer(layer, server, 200)
    assert layer.find(request("ACK"), 0.1) == (RequestMatch.INVITE, server)
    assert find(layer, request("ACK", branch="z9hG4bKown"), 0.1) is RequestMatch.NEW


def test_an_ack_before_any_final_response_changes_nothing() -> None:
    layer, server = called()
    answer(layer, server, 180)
    assert find(layer, request("ACK")) is RequestMatch.ACKED
    assert server.state is State.PROCEEDING
    assert answer(layer, server, 200)


def test_an_invite_waits_for_its_user_alone() -> None:
    layer, server = called()
    answer(layer, server, 180)
    assert run(layer, 10_000.0) == []
    assert layer.next_timer() is None
    assert layer.pending == 1
    assert answer(layer, server, 408, 10_000.0)


def test_a_forgotten_request_leaves_nothing() -> None:
    for method in ("INVITE", "OPTIONS"):
        layer, server = called(method)
        layer.forget(server)
        layer.forget(server)
        assert not answer(layer, server, 200)
        assert run(layer, 100.0) == []
        assert find(layer, request(method), 100.0) is RequestMatch.NEW
        assert layer.take_sends() == []
        assert is_empty(layer)


def test_a_cancel_is_a_transaction_beside_its_invite() -> None:
    layer, server = called()
    assert find(layer, request("CANCEL")) is RequestMatch.INVITE
    cancel = layer.open_server(request("CANCEL"), PEER, False, 0.0)
    assert answer(layer, cancel, 200)
    assert find(layer, request("CANCEL")) is RequestMatch.RETRANSMISSION
    assert answer(layer, server, 487)
    assert names(layer) == ["200", "200", "487"]


def test_a_request_is_opened_once() -> None:
    layer, _ = called()
    with pytest.raises(ValueError, match="transaction"):
        layer.open_server(request(), PEER, False, 0.0)
    assert (layer.servers, layer.pending) == (1, 1)


def test_the_request_and_the_user_are_let_go_when_they_are_of_no_more_use() -> None:
    layer, server = called("BYE", reliable=True)
    answer(layer, server, 200)
    assert server.request.method == "BYE"
    layer.take_sends()
    assert (server.request.rows, server.user) == ((), None)
    layer, server = called()
    answer(layer, server, 200)
    layer.take_sends()
    assert (server.request.rows, server.user) == ((), "user")
    run(layer, 100.0)
    assert server.user is None


def test_an_answered_request_keeps_its_user_only_where_a_cancel_may_ask_for_him() -> None:
    for method, status, kept in (("INVITE", 486, "user"), ("BYE", 200, None), ("OPTIONS", 408, None)):
        layer, server = called(method)
        answer(layer, server, status)
        assert server.user == "user"
        layer.take_sends()
        assert (server.state, server.user) == (State.COMPLETED, kept)
