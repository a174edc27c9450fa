"""Whoever fails again and again at a password waits longer and longer (A23)."""

from authsvc.memory.attempts import FORGOTTEN_SECONDS, LONGEST_SECONDS, Attempts


def test_from_the_limit_on_each_failure_doubles_the_wait_up_to_an_hour() -> None:
    attempts, at = Attempts(3, 60), 1_000_000
    waits = []
    for _ in range(12):
        attempts.failed("alice", at)
        waits.append(attempts.remaining("alice", at))
        at += waits[-1] * 1000
        assert attempts.remaining("alice", at) == 0
    assert waits == [0, 0, 60, 120, 240, 480, 960, 1920, *[LONGEST_SECONDS] * 4]
    assert attempts.remaining("bob", at) == 0


def test_failures_are_forgotten_after_a_success_and_after_a_day() -> None:
    attempts = Attempts(2, 60)
    for at in (0, 1000):
        attempts.failed("alice", at)
    assert attempts.remaining("alice", 1500) == 60
    attempts.succeeded("alice")
    assert attempts.remaining("alice", 1500) == 0
    for at in (0, 1000, 1000 + FORGOTTEN_SECONDS * 1000):
        attempts.failed("bob", at)
    assert attempts.remaining("bob", 1000 + FORGOTTEN_SECONDS * 1000) == 0


def test_one_that_was_no_failure_is_taken_back_and_the_others_stand() -> None:
    attempts = Attempts(2, 60)
    for _ in range(3):
        attempts.failed("alice", 0)
    attempts.retracted("alice")
    attempts.retracted("nobody")
    assert attempts.remaining("alice", 0) == 60


def test_memory_is_bounded_and_who_failed_last_stays() -> None:
    attempts = Attempts(1, 60, capacity=100)
    for number in range(1000):
        attempts.failed(f"user-{number}", number)
    assert len(attempts) == 100
    assert attempts.remaining("user-999", 1000) == 60
