"""What two looks at metrics say of the time between them."""

from typing import Any

from console.sampled import Look, minute, overall, parsed, process

PAGE = """# HELP ramal_drops_total Messages dropped.
# TYPE ramal_drops_total counter
ramal_drops_total{name="dead-letter"} 1.0
ramal_drops_total{name="bug"} 2.0
# TYPE ramal_edge_responses_total counter
ramal_edge_responses_total{status="200"} %(ok)s
ramal_edge_responses_total{status="503"} %(away)s
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total %(cpu)s
# TYPE ramal_lag_records gauge
ramal_lag_records{topic="calls",group="cdr"} 7.0
ramal_lag_records{topic="calls",group="analytics"} 3.0
# TYPE python_info gauge
python_info{version="3"} 1.0
"""


def look(at: float, name: str = "edge-1", **values: float) -> Look:
    return Look(name, at, parsed(PAGE % ({"ok": 0.0, "away": 0.0, "cpu": 0.0} | values)))


def test_rates_are_of_the_time_between_two_looks() -> None:
    pair = look(10, ok=100, away=0, cpu=1), look(12, ok=296, away=4, cpu=2)

    row = process(*pair)
    assert (row["cpu"], row["records_per_second"], row["lag"], row["ready"]) == (0.5, 100.0, 10, True)
    found = overall([pair])
    assert found["responses_per_second"] == {"2xx": 98.0, "5xx": 2.0}
    assert found["unavailable_share"] == 0.02
    assert (found["lag"], found["dead_letters"]) == ({"calls": 10}, 1)


def test_a_process_that_began_anew_counts_from_zero() -> None:
    assert process(look(10, ok=1000), look(12, ok=20))["records_per_second"] == 10.0


def test_one_worker_of_an_edge_that_began_anew_counts_from_zero_and_the_others_go_on() -> None:
    sample = 'ramal_edge_responses_total{worker="e.%d",status="200"} %%d\n'
    page = sample % 0 + sample % 1
    before, now = (Look("e", at, parsed(page % counts)) for at, counts in ((10, (5000, 1000)), (12, (20, 1180))))
    assert process(before, now)["records_per_second"] == 100.0


def test_a_process_that_is_seen_first_or_not_at_all_has_no_rates() -> None:
    first = look(10, ok=50)
    assert process(first, first)["records_per_second"] == 0.0
    gone = process(first, Look("edge-1", 12, {}, ["does not answer"]))
    assert (gone["ready"], gone["cpu"], gone["reasons"]) == (False, 0.0, ["does not answer"])


def test_only_metrics_of_ours_are_kept() -> None:
    assert not [name for name, _ in look(0).samples if name.startswith("python")]


def test_a_minute_is_the_sum_of_all_domains_and_its_rates_are_of_the_sum() -> None:
    calls: dict[str, Any] = {"start": 60_000, "failed": 0, "cancelled": 1, "missed": 1, "ended": 1, "talk_ms": 30_000}
    statistics = {
        "calls": [
            calls | {"attempts": 2, "answered": 1, "delivered": 2, "concurrent": 1, "pdd_p95": 900},
            calls | {"attempts": 2, "answered": 1, "delivered": 1, "concurrent": 2, "pdd_p95": None},
        ],
        "registrations": [{"start": 60_000, "online": 5}, {"start": 0, "online": 9}],
        "logins": [{"start": 60_000, "failed": 3}],
    }

    found = minute(statistics, 60_000)
    assert found is not None
    assert (found["asr"], found["ner"], found["acd"], found["concurrent"]) == (0.5, 0.75, 30.0, 3)
    assert (found["worst_pdd_p95"], found["online"], found["failed_logins"]) == (900, 5, 3)
    assert minute(statistics, 120_000) is None
