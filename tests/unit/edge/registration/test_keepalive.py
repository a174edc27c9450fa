"""Keep-alives of the owner (CHECKLIST N02, N03)."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.flow import Flow
from edge.core.registration.keepalive import TURNS, Keepalives, ping
from sipcore.message import Request
from sipcore.parser import parse_datagram

INTERVAL = 20.0
FOREVER = 1e9
LINE = "alice@example.test"
OTHER = "bob@example.test"


def flow(number: int) -> Flow:
    return Flow("udp", "192.0.2.1", 5060, "198.51.100.7", 1024 + number)


def pinged(keepalives: Keepalives, start: float, end: float) -> list[tuple[float, Flow]]:
    """What is pinged from start to end by a caller that comes when told, each with its time."""
    now, found = start, []
    while (at := keepalives.next_timer()) is not None and at <= end:
        now = max(now, at)
        found += [(now, flow) for flow in keepalives.due(now)]
    return found


def test_n02_a_registered_flow_is_pinged_every_interval_from_within_the_first_on() -> None:
    keepalives = Keepalives(INTERVAL)
    assert keepalives.registered(flow(1), LINE, FOREVER, 100.0)
    times = [at for at, _ in pinged(keepalives, 100.0, 100.0 + 10 * INTERVAL)]
    assert 100.0 < times[0] <= 100.0 + INTERVAL + 1e-6
    assert len(times) == 10
    assert all(abs(later - earlier - INTERVAL) < 1e-6 for earlier, later in itertools.pairwise(times))


@given(st.integers(1, 700), st.sampled_from([0.0, 0.05, 0.1, 0.1000001, 1.0]))
def test_n03_pings_are_spread_evenly_however_the_phones_registered(count: int, pause: float) -> None:
    keepalives = Keepalives(INTERVAL)
    now = 0.0
    for number in range(count):
        keepalives.registered(flow(number), LINE, FOREVER, now)
        now += pause
        keepalives.due(now)
    times = pinged(keepalives, now, now + INTERVAL - 1e-6)
    assert Counter(found for _, found in times).most_common(1)[0][1] <= 1
    assert abs(len(times) - count) <= -(-count // TURNS)
    in_one_moment = Counter(round(at, 6) for at, _ in times).most_common(1)[0][1]
    assert in_one_moment <= -(-count // TURNS)


def test_a_flow_that_has_ended_or_whose_binding_is_over_is_pinged_no_more() -> None:
    keepalives = Keepalives(INTERVAL)
    keepalives.registered(flow(1), LINE, FOREVER, 0.0)
    keepalives.registered(flow(2), LINE, 30.0, 0.0)
    keepalives.registered(flow(3), LINE, FOREVER, 0.0)
    keepalives.ended(flow(1), LINE)
    found = [found for _, found in pinged(keepalives, 0.0, 100.0)]
    assert found.count(flow(1)) == 0
    assert found.count(flow(2)) == 1
    assert found.count(flow(3)) == 5
    assert len(keepalives) == 1


def test_a_refresh_keeps_the_turn_and_an_ended_flow_may_come_back() -> None:
    keepalives = Keepalives(INTERVAL)
    keepalives.registered(flow(1), LINE, 25.0, 0.0)
    keepalives.registered(flow(1), LINE, FOREVER, 1.0)
    keepalives.ended(flow(1), LINE)
    keepalives.registered(flow(1), LINE, FOREVER, 2.0)
    assert len(pinged(keepalives, 2.0, 2.0 + INTERVAL)) == 1
    keepalives.ended(flow(1), LINE)
    assert pinged(keepalives, 30.0, 60.0) == []
    assert keepalives.next_timer() is None
    keepalives.registered(flow(1), LINE, FOREVER, 70.0)
    assert len(pinged(keepalives, 70.0, 70.0 + INTERVAL + 1e-6)) == 1


def test_a_flow_of_several_lines_is_pinged_once_each_interval_and_until_the_last_line_ends() -> None:
    keepalives = Keepalives(INTERVAL)
    keepalives.registered(flow(1), LINE, FOREVER, 0.0)
    keepalives.registered(flow(1), OTHER, 30.0, 0.0)
    assert len(pinged(keepalives, 0.0, 100.0)) == 5
    keepalives.registered(flow(1), OTHER, FOREVER, 100.0)
    keepalives.ended(flow(1), LINE)
    keepalives.ended(flow(1), LINE)
    assert len(pinged(keepalives, 100.0, 200.0)) == 5
    keepalives.ended(flow(1), OTHER)
    assert pinged(keepalives, 200.0, 300.0) == []
    assert len(keepalives) == 0


def test_the_flows_of_a_line_are_those_by_which_it_is_registered_now() -> None:
    keepalives = Keepalives(INTERVAL)
    for number, until in ((1, FOREVER), (2, FOREVER), (3, 30.0)):
        keepalives.registered(flow(number), LINE, until, 0.0)
        keepalives.registered(flow(number), LINE, until, 1.0)
    keepalives.registered(flow(1), OTHER, FOREVER, 0.0)
    assert keepalives.flows(LINE) == (flow(1), flow(2), flow(3))
    keepalives.ended(flow(1), LINE)
    keepalives.ended(flow(1), LINE)
    pinged(keepalives, 0.0, 60.0)
    assert keepalives.flows(LINE) == (flow(2),)
    keepalives.ended(flow(2), LINE)
    assert (keepalives.flows(LINE), keepalives.flows(OTHER)) == ((), (flow(1),))


def test_lines_beyond_the_limit_are_not_pinged_until_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.core.registration.keepalive.LINES", 2)
    keepalives = Keepalives(INTERVAL)
    assert keepalives.registered(flow(1), LINE, FOREVER, 0.0)
    assert keepalives.registered(flow(1), OTHER, 30.0, 0.0)
    assert not keepalives.registered(flow(2), LINE, FOREVER, 0.0)
    assert keepalives.registered(flow(1), LINE, FOREVER, 1.0)
    pinged(keepalives, 0.0, 60.0)
    assert keepalives.registered(flow(2), LINE, FOREVER, 60.0)


def test_r34_a_phone_that_answered_pings_and_does_no_more_is_silent_and_one_that_never_did_is_not() -> None:
    keepalives = Keepalives(INTERVAL)
    for number in (1, 2):
        keepalives.registered(flow(number), LINE, FOREVER, 0.0)
    keepalives.answered(flow(3))
    pinged(keepalives, 0.0, INTERVAL)
    keepalives.answered(flow(1))
    pinged(keepalives, INTERVAL, 3 * INTERVAL)
    assert not keepalives.is_silent(flow(1))
    pinged(keepalives, 3 * INTERVAL, 4 * INTERVAL)
    assert [keepalives.is_silent(flow(number)) for number in (1, 2, 3)] == [True, False, False]
    keepalives.answered(flow(1))
    assert not keepalives.is_silent(flow(1))
    pinged(keepalives, 4 * INTERVAL, 8 * INTERVAL)
    assert keepalives.is_silent(flow(1))
    keepalives.registered(flow(1), LINE, FOREVER, 8 * INTERVAL)
    assert not keepalives.is_silent(flow(1))
    pinged(keepalives, 8 * INTERVAL, 12 * INTERVAL)
    keepalives.ended(flow(1), LINE)
    pinged(keepalives, 12 * INTERVAL, 13 * INTERVAL)
    assert not keepalives.is_silent(flow(1))


def test_a_caller_that_comes_late_pings_each_flow_once() -> None:
    keepalives = Keepalives(INTERVAL)
    for number in range(500):
        keepalives.registered(flow(number), LINE, FOREVER, 0.0)
    found = keepalives.due(1000.0)
    assert len(found) == len(set(found)) == 500
    assert keepalives.due(1000.0) == []


def test_an_interval_of_zero_pings_nobody() -> None:
    keepalives = Keepalives(0)
    assert not keepalives.registered(flow(1), LINE, FOREVER, 0.0)
    assert keepalives.next_timer() is None
    assert keepalives.due(1e6) == []


def test_a_ping_is_an_options_request_that_goes_no_further() -> None:
    ipv6 = Flow("udp", "2001:db8::1", 5060, "2001:db8::7", 5062)
    request = parse_datagram(ping(ipv6, "z9hG4bK" + "ab" * 20, "sip.example.test"))
    assert isinstance(request, Request)
    assert (request.method, request.uri) == ("OPTIONS", "sip:[2001:db8::7]:5062")
    assert request.first("max-forwards") == "0"
    assert (request.via.host, "rport" in request.via.params) == ("sip.example.test", True)
