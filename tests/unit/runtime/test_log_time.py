"""The log's clock as a process knows it: by its own appends to the millisecond, by what it reads at least."""

from runtime.log.clock import LogTime


def test_the_logs_time_is_learnt_and_carried_on_by_our_clock():
    now = [50.0]
    time = LogTime(lambda: now[0])
    assert time.now() is None
    time.learn(1_000_000)
    now[0] += 1.5
    assert time.now() == 1_001_500


def test_a_record_that_was_read_moves_the_time_forwards_only():
    now = [50.0]
    time = LogTime(lambda: now[0])
    time.heard(1_000_000)
    now[0] += 2
    time.heard(1_001_000)  # it lay there for a second
    assert time.now() == 1_002_000
    time.heard(1_009_000)
    assert time.now() == 1_009_000
    time.learn(1_004_000)  # the log's clock was set back: what is acknowledged just now says so
    assert time.now() == 1_004_000
