"""authsvc.memory.nonces, lockout and audit: what a partition remembers, and that it is bounded."""

from hypothesis import given
from hypothesis import strategies as st

from authsvc.memory.audit_rate import PER_MINUTE, PER_SOURCE, AuditRate
from authsvc.memory.lockouts import Lockouts
from authsvc.memory.nonces import WIDTH, Replays, Use

AT = 1_000_000


@given(st.lists(st.integers(1, 200), max_size=120))
def test_a09_an_nc_is_first_once_and_only_within_64_of_the_highest(ncs: list[int]) -> None:
    replays = Replays(300, 10)
    used: set[int] = set()
    for fingerprint, nc in enumerate(ncs):
        look = replays.look(1, 1000, nc, fingerprint, AT)
        first = nc not in used and nc > max(used, default=nc) - WIDTH
        assert look is (Use.FIRST if first else Use.REPEATED)
        if first:
            replays.enter(1, 1000, nc, fingerprint, AT)
            used.add(nc)


def test_a09_the_last_four_uses_are_known_again() -> None:
    replays = Replays(300, 10)
    for nc in range(1, 6):
        replays.enter(1, 1000, nc, 100 + nc, AT)
    assert [replays.look(1, 1000, nc, 100 + nc, AT) for nc in range(1, 6)] == [Use.REPEATED, *[Use.COPY] * 4]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(990, 999)), max_size=100))
def test_a09_the_store_is_bounded_and_what_it_forgot_is_never_first(uses: list[tuple[int, int]]) -> None:
    replays = Replays(300, 8)
    used: set[tuple[int, int]] = set()
    for key, made in uses:
        look = replays.look(key, made, 1, 0, AT)
        assert look is not Use.FIRST or (key, made) not in used
        if look is Use.FIRST:
            replays.enter(key, made, 1, 0, AT)
            used.add((key, made))
        assert replays.size <= 8


def test_a09_windows_go_when_their_nonces_have_expired() -> None:
    replays = Replays(300, 10)
    replays.enter(1, 1000, 1, 0, 1_000_000)
    replays.enter(2, 1302, 1, 0, 1_302_000)
    assert replays.size == 1
    assert replays.floor == -1


def test_a30_failures_that_are_far_apart_do_not_add_up() -> None:
    lockouts = Lockouts(2, 60)
    lockouts.failed("alice@x", "192.0.2.1", 0)
    lockouts.failed("alice@x", "192.0.2.1", 60_000)
    assert lockouts.remaining("alice@x", "192.0.2.1", 60_001) == 0
    lockouts.failed("alice@x", "192.0.2.1", 61_000)
    assert lockouts.remaining("alice@x", "192.0.2.1", 61_000) == 60
    assert lockouts.remaining("alice@x", "192.0.2.1", 120_999) == 1
    assert lockouts.remaining("alice@x", "192.0.2.1", 121_000) == 0


def test_a30_the_store_of_failures_is_bounded() -> None:
    lockouts = Lockouts(1, 60, capacity=3)
    for number in range(5):
        lockouts.failed("alice@x", f"192.0.2.{number}", 0)
    assert len(lockouts) == 3
    assert lockouts.remaining("alice@x", "192.0.2.4", 1) == 60
    assert lockouts.remaining("alice@x", "192.0.2.0", 1) == 0


def test_a30_failures_whose_time_is_over_take_no_memory() -> None:
    lockouts = Lockouts(2, 60)
    for number in range(100):
        lockouts.failed(f"user-{number}@x", "192.0.2.1", number)
    lockouts.failed("alice@x", "192.0.2.1", 60_050)
    assert len(lockouts) == 50


def test_an_attack_cannot_flood_the_audit() -> None:
    rate = AuditRate()
    assert sum(rate.allows("192.0.2.1", AT) for _ in range(1000)) == PER_SOURCE
    assert sum(rate.allows(f"2001:db8::{n:x}", AT) for n in range(5000)) == PER_MINUTE - PER_SOURCE
    assert rate.allows("192.0.2.1", AT + 60_000)
