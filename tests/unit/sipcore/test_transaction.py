"""sipcore.transaction: the non-INVITE server transaction."""

import itertools

import pytest

from sipcore.message import Request
from sipcore.parser import parse_datagram
from sipcore.transaction import TABLE, TIMER_J, TRYING_AFTER, Action, State, Stimulus, step, transaction_key


def request(
    via: str = "SIP/2.0/UDP phone:5062;branch=z9hG4bKabc",
    method: str = "REGISTER",
    uri: str = "sip:b",
    call_id: str = "c",
    cseq: int = 1,
    to: str = "<sip:a@b>",
    from_tag: str = "1",
) -> Request:
    number_method = "INVITE" if method == "ACK" else method
    text = (
        f"{method} {uri} SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@b>;tag={from_tag}\r\nTo: {to}\r\nCall-ID: {call_id}\r\n"
        f"CSeq: {cseq} {method if method == 'ACK' else number_method}\r\n\r\n"
    )
    message = parse_datagram(text.encode())
    assert isinstance(message, Request)
    return message


def key(*args: str, **kwargs: object) -> str:
    return transaction_key(request(*args, **kwargs))  # type: ignore[arg-type]  # one helper for many cases


def test_x03_a_retransmission_matches_by_branch_without_case_sent_by_and_method() -> None:
    original = key()
    assert key("SIP/2.0/UDP PHONE:5062;branch=Z9HG4BKABC") == original
    assert key("SIP/2.0/UDP phone:5062;rport=7;branch=z9hG4bKabc;received=192.0.2.1") == original
    assert key(uri="sip:other", call_id="other", cseq=9) == original
    assert key("SIP/2.0/UDP phone:5062;branch=z9hG4bKabd") != original
    assert key("SIP/2.0/UDP phone:5063;branch=z9hG4bKabc") != original
    assert key("SIP/2.0/UDP phone;branch=z9hG4bKabc") != original
    assert key("SIP/2.0/UDP other:5062;branch=z9hG4bKabc") != original
    assert key(method="OPTIONS") != original


def test_x03_an_ack_matches_its_invite_and_a_cancel_does_not() -> None:
    assert key(method="ACK") == key(method="INVITE")
    assert key(method="CANCEL") != key(method="INVITE")


@pytest.mark.parametrize("branch", ["", ";branch=1234", ";branch="])
def test_x03_without_the_cookie_the_rule_of_rfc_2543_counts(branch: str) -> None:
    via = f"SIP/2.0/UDP phone:5062{branch}"
    original = key(via)
    assert key(via) == original
    assert key(via + ";received=192.0.2.1") == original
    changed: list[dict[str, object]] = [
        {"uri": "sip:other"},
        {"call_id": "other"},
        {"cseq": 2},
        {"to": "<sip:a@b>;tag=2"},
        {"from_tag": "2"},
        {"method": "OPTIONS"},
    ]
    for change in changed:
        assert key(via, **change) != original
    assert key(f"SIP/2.0/UDP phone:5063{branch}") != original
    assert key(f"SIP/2.0/TCP phone:5062{branch}") != original
    assert key(via, method="ACK", to="<sip:a@b>;tag=2") == key(via, method="INVITE")


def test_x03_a_key_is_small_whatever_the_branch() -> None:
    keys = {key(f"SIP/2.0/UDP h;branch=z9hG4bK{'x' * 4000}{n}") for n in range(3)}
    assert len(keys) == 3
    assert max(map(len, keys)) <= 200


def test_x02_a_100_is_due_when_timer_e_has_reached_t2() -> None:
    timer_e, waits = 0.5, 0.0
    while timer_e < 4.0:
        waits += timer_e
        timer_e *= 2
    assert waits == TRYING_AFTER


def test_x07_timer_j_is_64_t1() -> None:
    assert TIMER_J == 32.0


def test_x04_a_retransmission_gets_the_last_response_or_silence_and_changes_nothing() -> None:
    assert step(State.TRYING, Stimulus.REQUEST) == (State.TRYING, Action.NOTHING)
    assert step(State.PROCEEDING, Stimulus.REQUEST) == (State.PROCEEDING, Action.RESEND)
    assert step(State.COMPLETED, Stimulus.REQUEST) == (State.COMPLETED, Action.RESEND)


def test_figure_8_the_ways_through() -> None:
    for path, actions in {
        (Stimulus.FINAL, Stimulus.TIMER_J): [Action.SEND, Action.NOTHING],
        (Stimulus.PROVISIONAL, Stimulus.FINAL, Stimulus.TIMER_J): [Action.SEND, Action.SEND, Action.NOTHING],
        (Stimulus.PROVISIONAL, Stimulus.PROVISIONAL, Stimulus.TRANSPORT_ERROR): [
            Action.SEND,
            Action.SEND,
            Action.INFORM,
        ],
        (Stimulus.FINAL, Stimulus.TRANSPORT_ERROR): [Action.SEND, Action.INFORM],
    }.items():
        state, done = State.TRYING, []
        for each in path:
            state, action = step(state, each)
            done.append(action)
        assert (state, done) == (State.TERMINATED, actions)


def test_figure_8_after_a_final_response_no_other_one_leaves() -> None:
    for each in (Stimulus.FINAL, Stimulus.PROVISIONAL):
        assert step(State.COMPLETED, each) == (State.COMPLETED, Action.NOTHING)


def test_figure_8_what_is_not_drawn_changes_nothing_and_nothing_leaves_terminated() -> None:
    for state, each in itertools.product(State, Stimulus):
        if (state, each) not in TABLE:
            assert step(state, each) == (state, Action.NOTHING)
    assert all(state is not State.TERMINATED for state, _ in TABLE)
