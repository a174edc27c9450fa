"""CHECKLIST S01: which sources flood, and the filter that keeps them out."""

from ipaddress import ip_address

import pytest

from edge.transport import floods
from edge.transport.floods import LASTS, REFUSED, SOURCES, STEP, STEPS, Floods, Instruction, program
from edge.transport.turns import network

STRANGER, OTHER = "192.0.2.66", "192.0.2.7"


def flooded(state: Floods, source: str = STRANGER, now: float = 0.0, count: int = REFUSED) -> list[bool]:
    return [state.refused(source, now) for _ in range(count)]


def test_s01_a_crowd_is_no_flood() -> None:
    state = Floods()
    for second in range(10):
        assert not any(flooded(state, now=float(second), count=REFUSED - 1))
    assert not state.steps


def test_s01_who_floods_is_let_in_less_and_less_and_after_quiet_seconds_again() -> None:
    state, now = Floods(), 0.0
    for step in range(1, STEPS + 1):
        assert flooded(state, now=now)[-1]
        assert state.steps == {STRANGER: step}
        now += 0.1
    assert not any(flooded(state, now=now))
    assert not state.look(now + LASTS - 1)
    state.refused(STRANGER, now + LASTS - 1)
    assert not state.look(now + LASTS + 1)
    for step in range(STEPS - 1, -1, -1):
        now += 2 * LASTS
        assert state.look(now)
        assert state.steps.get(STRANGER, 0) == step
    assert not state.look(now + LASTS)


def test_s01_what_is_remembered_of_sources_is_bounded() -> None:
    state = Floods()
    for number in range(10 * SOURCES):
        state.refused(f"192.0.2.{number}", 0.0)
        assert len(state._refused) <= SOURCES
    for number in range(2 * SOURCES):
        flooded(state, f"198.51.100.{number}")
    assert len(state.steps) == SOURCES


def passes(instructions: list[Instruction], source: str, chance: int) -> bool:
    """What the kernel would do, `chance` being the random number that it draws."""
    packed = ip_address(source).packed
    header = bytes(12 if len(packed) == 4 else 8) + packed
    value, at = 0, 0
    while True:
        code, yes, no, k = instructions[at]
        at += 1
        if code == floods._RETURN:
            return bool(k)
        if code == floods._LOAD:
            start = k - floods._NETWORK
            value = chance if k == floods._RANDOM else int.from_bytes(header[start : start + 4], "big")
        else:
            assert code in (floods._EQUAL, floods._AT_LEAST)
            at += yes if (value == k if code == floods._EQUAL else value >= k) else no


@pytest.mark.parametrize("sources", [(STRANGER, "192.0.2.67"), ("2001:db8:1:2::5", "2001:db8:1:3::5")])
def test_s01_the_filter_lets_in_a_share_of_these_sources_and_all_of_others(sources: tuple[str, str]) -> None:
    ipv6 = ":" in sources[0]
    steps = {network(sources[0]): 1, network(sources[1]): 3}
    instructions = program({**steps, network("2001:db8:9::1" if not ipv6 else OTHER): 5}, ipv6=ipv6)
    for source, step in zip(sources, (1, 3), strict=True):
        share = 2**32 // STEP**step
        assert passes(instructions, source, share - 1)
        assert not passes(instructions, source, share)
        assert not passes(instructions, source, 2**32 - 1)
    for source in ("2001:db8:1:4::5", "2001:db8:2:2::5") if ipv6 else (OTHER, "192.0.3.66"):
        assert passes(instructions, source, 2**32 - 1)
    assert program({}, ipv6=ipv6) == []
