"""The log's clock: what time it is there, whatever the wall says."""

from hypothesis import given
from hypothesis import strategies as st

from edge.core.clock import LogClock


def test_e17_the_clock_follows_the_log_whatever_the_wall_says() -> None:
    clock = LogClock(10.0, 5_000.0)
    assert clock.at(11.0) == 5_001_000
    clock.learn(12.0, 12.1, 9_000_050)
    assert clock.at(12.05) in (9_000_050, 9_000_051)
    clock.learn(20.0, 25.0, 9_012_000)  # a long wait teaches nothing new
    assert clock.at(12.05) in (9_000_050, 9_000_051)
    clock.learn(30.0, 30.01, 9_118_000)  # the log's clock was stepped: followed at once
    assert abs(clock.at(30.0) - 9_118_000) <= 11


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)), min_size=1, max_size=20))
def test_e17_the_estimate_is_never_further_off_than_a_round_trip(trips: list[tuple[float, float]]) -> None:
    clock = LogClock(0.0, 0.0)
    now = 0.0
    for out, back in trips:
        sent = now
        stamped = sent + out
        now = stamped + back
        clock.learn(sent, now, int(stamped * 1000) + 7_000_000)
        assert abs(clock.at(now) - (now * 1000 + 7_000_000)) <= (out + back) * 1000 + 2


def test_clocks_of_brokers_are_apart_where_the_logs_time_goes_back_and_forth() -> None:
    clock = LogClock(0.0, 0.0)
    for second in range(4):
        clock.learn(second, second + 0.01, 1_000_000 + second * 1000)
    assert clock.apart(4.0) == 0.0
    clock.learn(5.0, 5.01, 4_605_000)  # an hour: perhaps it was set
    assert clock.apart(6.0) == 0.0
    clock.learn(7.0, 7.01, 1_007_000)
    assert round(clock.apart(8.0)) == 3600
    assert clock.apart(70.0) == 0.0
