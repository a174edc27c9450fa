"""What bench/curves_points.py and bench/spin.py reckon: the order of the points, medians, and the correction."""

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("curves_points")


@pytest.fixture
def spin(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("spin")


def figure(curves: Any, target: str, cpu: float, during: float | None, failed: int = 0) -> Any:
    return curves.Figure(target, "refresh", "100/s", 0, 100.0, failed, 0, 2.0, 4.0, cpu, {}, (None, during, None))


def test_each_load_is_offered_to_every_target_before_the_next_and_the_order_turns(curves: Any) -> None:
    loads = curves.loads([100, 500], [50])
    points = [point for _, point in curves.plan(["a", "b"], ["register", "refresh"], loads, 2.0, 700, 1)]

    assert [point.target for point in points] == ["a", "b", "b", "a", "a", "b", "b", "a", "a", "b", "b", "a"]
    pairs = list(zip(points[::2], points[1::2], strict=True))
    assert all(one._replace(target="") == other._replace(target="") for one, other in pairs)
    assert [one.count for one, _ in pairs] == [200, 1000, 700] * 2


def test_a_load_has_users_of_its_own_in_each_round_and_sequence_numbers_only_rise(curves: Any) -> None:
    loads = curves.loads([100], [50, 300])
    points = list(curves.plan(["a"], ["register", "refresh"], loads, 3.0, 500, 2))

    registered = [point for _, point in points if point.workload == "register"]
    spans = [(point.first_user, point.first_user + point.count) for point in registered]
    assert spans == [(0, 300), (300, 800), (800, 1300), (1300, 1600), (1600, 2100), (2100, 2600)]
    assert curves.users_needed(loads, 3.0, 500, 2) == 2600
    by_load = {(number, str(point.load)): point.first_user for number, point in points}
    assert all(by_load[number, str(point.load)] == point.first_user for number, point in points)
    numbers = [point.cseq for _, point in points]
    assert numbers == sorted(set(numbers))


def test_processor_time_is_corrected_by_the_work_beside_it_and_stays_where_there_was_none(spin: Any) -> None:
    assert spin.corrected(1.5, 15.0, 10.0) == pytest.approx(1.0)
    assert spin.corrected(1.5, None, 10.0) == 1.5


def test_samples_count_where_they_were_done_within_the_times(spin: Any) -> None:
    samples = [spin.Sample(at, at % 2, 10.0 + at) for at in range(10)]

    assert spin.mean(samples, 2, 4) == 13.0
    assert spin.mean(samples, 20, 30) is None
    assert spin.unhindered(samples) == 10.0


def test_the_table_compares_with_the_first_target_at_the_same_load_by_corrected_time(curves: Any) -> None:
    figures = [
        figure(curves, "a", 2.0, 20.0),
        figure(curves, "b", 1.5, 10.0, failed=3),
        figure(curves, "a", 3.0, 30.0),
        figure(curves, "b", 1.5, 10.0),
    ]

    rows = curves.table(figures, 10.0).splitlines()

    assert len({row.count("|") for row in rows}) == 1
    assert rows[2].endswith("| 0, 0 | 2.50 | 2.50 × | 1.00 | 1.00 × | 1.00 × |")
    assert rows[3].endswith("| 3, 0 | 1.50 | 1.00 × | 1.50 | 1.00 × | 1.50 × |")


def test_a_curve_that_was_stopped_half_way_has_a_table(curves: Any) -> None:
    assert curves.table([figure(curves, "b", 1.5, None)], 10.0).splitlines()[-1].endswith("| 1.00 × | 1.00 × |")


def test_the_work_is_timed_on_the_core_that_was_asked_for(spin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, set[int]]] = []
    monkeypatch.setattr(spin.os, "sched_setaffinity", lambda pid, cores: asked.append((pid, cores)))
    monkeypatch.setattr(spin, "TURNS", 1000)

    assert spin.sample(1).milliseconds > 0
    assert asked == [(0, {1})]


def test_who_presses_ctrl_c_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    curves, points = importlib.import_module("curves"), importlib.import_module("curves_points")
    said: list[str] = []
    monkeypatch.setattr(curves, "say", said.append)

    class Bench:
        """Measures two points; at the third somebody loses patience."""

        asked = 0

        def measure(self, number: int, point: Any, most_seconds: float) -> Any:
            self.asked += 1
            if self.asked == 3:
                raise KeyboardInterrupt
            return figure(points, point.target, 1.0, 10.0)

    offered = list(points.plan(["a", "b"], ["register"], points.loads([100], [50]), 1.0, 100, 2))

    assert [each.target for each in curves.run(Bench(), offered, 1.0)] == ["a", "b"]
    assert said[-1] == "Stopped after 2 of 8: what follows is of these."
    assert "min left" in said[1]
