"""What bench/growth.py fills in is what it then refreshes, and what it refuses."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from events.registrations import Kind
from locator.decider import location
from registrar.config import Policy
from registrar.decider import decide

BENCH = Path(__file__).parents[3] / "bench"
NAMES = ("registrar", "locator", "MariaDB")


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("growth")


def test_a_refresh_is_of_the_binding_that_was_filled_in(growth: Any) -> None:
    before = growth.state(12345, 1_000_000)

    event = decide(before, growth.command(12345, 2), 1_100_000, 0, 7, Policy())

    [change] = event.changes
    assert (change.kind, change.id) == (Kind.REFRESHED, before.bindings[0].id)
    assert event.aor == growth.aor(12345)


def test_rows_are_copied_but_for_the_columns_that_tell_phones_apart(growth: Any) -> None:
    """A copy that is not what its phone registered makes the phone's refresh a move."""
    tables = importlib.import_module("growth_tables")
    one, other = (location(growth.state(n, 0).bindings[0], growth.aor(n), 0) for n in (1, 1 + tables.COPIED))

    differing = {name for name in one._fields if getattr(one, name) != getattr(other, name)}

    assert differing == set(tables.told_apart(tables.COPIED))


def test_who_has_moved_is_at_another_place_under_the_same_name(growth: Any) -> None:
    stays, moved = (location(growth.state(1, 0, 2, ports).bindings[0], growth.aor(1), 0) for ports in (0, 1))

    differing = {name for name in stays._fields if getattr(stays, name) != getattr(moved, name)}

    assert differing == {"contact", "received"}


@pytest.mark.parametrize(
    ("costs", "lookup", "good"), [((1.0, 1.09), 1.9, True), ((1.0, 1.2), 1.9, False), ((1.0, 1.0), 2.1, False)]
)
def test_a_tenth_more_than_the_least_is_too_much_and_so_are_2_ms_for_a_look_up(
    growth: Any, costs: tuple[float, float], lookup: float, good: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {(name, size): [cost] for name in NAMES for size, cost in zip((10, 100), costs, strict=True)}
    found |= {(name, size): [lookup] for name in ("moved", "look-up", "idle") for size in (10, 100)}

    assert growth.tell(found, (10, 100)) is good
    assert f"| 100 | {costs[1]:.3f} |" in capsys.readouterr().out
