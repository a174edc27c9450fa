"""Windowed figures of calls: in whatever order and however often records come, they are those of the records."""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cdr.decider import record
from cdr.state import State, call_of, evolve
from cdr.statistics.board import CallFigures
from cdr.statistics.calls import MINUTE
from cdr.statistics.delay import BOUNDS, bucket, quantile
from cdr.statistics.share import Share
from events.calls import CallEvent
from events.topics import CALLS
from tests.kit.call_stories import Story, missed, talk
from tests.kit.feed import BEGIN, GRACE, Feed


def counted(calls: Iterable[CallFigures]) -> dict[tuple[int, str], dict[str, Any]]:
    """Windows in which there is anything, without concurrency."""
    names = ("attempts", "answered", "failed", "cancelled", "redirected", "missed", "to_users", "ended", "talk_ms")
    found = {(each.start, each.domain): {name: getattr(each, name) for name in names} for each in calls}
    return {key: values for key, values in found.items() if any(values.values())}


def by_records(events: Sequence[CallEvent]) -> dict[tuple[int, str], dict[str, Any]]:
    """The same from the record of each call, as SQL over `cdrs` would have it; calls that have ended."""
    states: dict[Any, State] = {}
    for event in events:
        states[call_of(event)] = evolve(states.get(call_of(event), State()), event)
    windows: dict[tuple[int, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for call, state in states.items():
        told = record(call, state)
        domain = (told.callee if told.ours else told.caller).rpartition("@")[2]
        cell = windows[told.attempted // MINUTE * MINUTE, domain]
        cell["attempts"] += 1
        cell[told.outcome] += 1
        cell["to_users"] += told.ours
        cell["missed"] += told.missed
        if told.answered and told.ended:
            end = windows[told.ended // MINUTE * MINUTE, domain]
            end["ended"] += 1
            end["talk_ms"] += told.talk_ms
    names = ("attempts", "answered", "failed", "cancelled", "redirected", "missed", "to_users", "ended", "talk_ms")
    return {key: {name: cell[name] for name in names} for key, cell in windows.items()}


@st.composite
def stories(draw: st.DrawFn) -> list[Story]:
    """Calls within some minutes."""
    told = []
    for number in range(draw(st.integers(1, 6))):
        story = Story(call_id=f"call-{number}", now=BEGIN + draw(st.integers(0, 3 * MINUTE)))
        callee = draw(st.sampled_from(["bob", "carol", ""]))
        gateway = draw(st.sampled_from(["", "gw-1"]))
        story.attempted(callee=callee).wait(draw(st.integers(0, 3000))).branch(gateway=gateway)
        if draw(st.booleans()):
            story.wait(draw(st.integers(0, 9000))).rings()
        story.wait(draw(st.integers(0, 20_000)))
        match draw(st.sampled_from(["talk", "busy", "fail", "cancel", "redirect"])):
            case "talk":
                story.answered(gateway=gateway).wait(draw(st.integers(0, 2 * MINUTE))).ended()
            case "busy":
                story.failed(486)
            case "fail":
                story.failed(503)
            case "cancel":
                story.cancelled()
            case "redirect":
                story.redirected()
        told.append(story)
    return told


@given(stories(), st.randoms(use_true_random=False))
def test_figures_are_those_of_the_calls_records_in_any_order_and_with_any_copies(
    told: list[Story], chance: random.Random
) -> None:
    events = [event for story in told for event in story.events]
    shuffled = [*events, *chance.choices(events, k=5)]
    chance.shuffle(shuffled)
    feed = Feed()
    for event in shuffled:
        feed.call(event, BEGIN + 8 * MINUTE)
        if chance.random() < 0.3:
            feed.told()

    assert counted(feed.calls()) == by_records(events)


@given(stories(), st.randoms(use_true_random=False))
def test_figures_go_on_from_any_beginning_of_what_was_being_stored(told: list[Story], chance: random.Random) -> None:
    """Whoever dies in the middle of storing leaves new minutes and calls beside an old position; what is stored was
    told before."""
    events = sorted((event for story in told for event in story.events), key=lambda event: event.at)
    records = [(event, max(event.at, BEGIN)) for event in events]
    # What came later closes the first minutes between two stores.
    records += [(talk(now=BEGIN + 30 * MINUTE, call_id="last").events[0], BEGIN + 30 * MINUTE)]
    whole, feed, stored = Feed(), Feed(), dict[str, bytes]()
    for event, timestamp in records:
        whole.call(event, timestamp)
        whole.told()
    board = feed.board
    for number, (event, timestamp) in enumerate(records):
        if feed.share.places[CALLS].next > number:
            continue
        feed.call(event, timestamp)
        if chance.random() < 0.4:
            feed.told()
            changes = list(feed.share.changes())
            crash = chance.random() < 0.4
            for name, value in changes[: chance.randrange(len(changes)) if crash else None]:
                if value is None:
                    stored.pop(name, None)
                else:
                    stored[name] = value
            if crash:
                share = Share(0, GRACE)
                share.load(stored)
                feed = Feed(share)
                feed.board = board
                for again, at in records[share.places[CALLS].next : number + 1]:
                    feed.call(again, at)

    assert feed.calls() == whole.calls()
    assert feed.calls(3600) == whole.calls(3600)


def test_a_call_counts_at_once_and_its_talk_when_it_ends() -> None:
    feed, story = Feed(), talk(now=BEGIN, ring=2000, last=3 * MINUTE)
    *setup, end = story.events
    for event in setup:
        feed.call(event, event.at)
    first, *_ = feed.calls()
    assert (first.attempts, first.answered, first.concurrent, first.ended, first.asr) == (1, 1, 1, 0, 1.0)
    feed.call(end, end.at)

    figures = {each.start: each for each in feed.calls()}
    assert figures[BEGIN].concurrent == figures[BEGIN + 2 * MINUTE].concurrent == 1
    last = figures[BEGIN + 3 * MINUTE]
    assert (last.attempts, last.concurrent, last.ended, last.acd) == (0, 0, 1, 180.0)
    (hour,) = feed.calls(3600)
    assert (hour.attempts, hour.answered, hour.ended, hour.concurrent, hour.acd) == (1, 1, 1, 0, 180.0)


def test_a_call_that_goes_on_is_told_in_each_minute() -> None:
    feed, story = Feed(), talk(now=BEGIN)
    for event in story.events[:-1]:
        feed.call(event, event.at)
    feed.told(BEGIN + 90 * MINUTE)

    concurrent = {each.start: each.concurrent for each in feed.board.calls(60, 0, 1 << 60)}
    assert concurrent[BEGIN + 90 * MINUTE] == concurrent[BEGIN + 89 * MINUTE] == concurrent[BEGIN] == 1


def test_rates_are_those_of_e425() -> None:
    feed = Feed()
    told = [talk(now=BEGIN), talk(now=BEGIN), missed(now=BEGIN)]
    told.append(Story(now=BEGIN).attempted().failed(486))  # busy: the network did its part
    told.append(Story(now=BEGIN).attempted().failed(503))
    told.append(Story(now=BEGIN).attempted().redirected())  # tried again elsewhere
    told.append(Story(now=BEGIN).attempted().branch().rings())  # nobody knows yet
    for event in (event for story in told for event in story.events):
        feed.call(event, BEGIN + 2 * MINUTE)

    first = feed.calls()[0]
    assert (first.attempts, first.answered, first.failed, first.cancelled, first.redirected) == (7, 2, 2, 1, 1)
    assert (first.asr, first.ner, first.missed_rate) == (0.4, 0.8, round(1 / 6, 6))


def test_gateways_are_apart_and_together() -> None:
    feed = Feed()
    for story in (
        Story(now=BEGIN).attempted(callee="").branch(gateway="gw-1").answered(gateway="gw-1").ended(),
        Story(now=BEGIN).attempted(callee="").branch(gateway="gw-2").failed(503),
        talk(now=BEGIN),
    ):
        for event in story.events:
            feed.call(event, BEGIN + MINUTE)

    apart = {each.gateway: each.attempts for each in feed.calls(by_gateway=True) if each.start == BEGIN}
    assert apart == {"": 1, "gw-1": 1, "gw-2": 1}
    assert feed.calls()[0].attempts == 3


def test_what_comes_within_the_grace_counts_and_what_comes_later_is_late() -> None:
    feed = Feed()
    for story, late in ((talk(now=BEGIN), GRACE), (talk(now=BEGIN), GRACE + MINUTE)):
        for event in story.events:
            feed.call(event, BEGIN + late)

    figures = feed.calls()
    assert sum(each.attempts for each in figures) == 1
    # All but the BYE, whose minute is still open.
    late = [(each.start, each.late) for each in figures if each.late]
    assert sum(count for _, count in late) == len(talk().events) - 1
    assert {start for start, _ in late} == {BEGIN + GRACE + MINUTE}


def test_a_call_that_ends_too_late_is_in_progress_no_more() -> None:
    feed, story = Feed(), talk(now=BEGIN)
    *setup, end = story.events
    for event in setup:
        feed.call(event, event.at)
    feed.call(Story(now=BEGIN + 60 * MINUTE).attempted().events[0], BEGIN + 60 * MINUTE)
    feed.call(end, BEGIN + 60 * MINUTE)

    figures = {each.start: each for each in feed.calls()}
    assert BEGIN + 59 * MINUTE not in figures
    assert figures[BEGIN + 60 * MINUTE].late == 1


def test_a_call_of_which_the_invite_was_never_told_is_in_no_figure() -> None:
    feed = Feed()
    feed.call(Story(now=BEGIN).ended().events[0], BEGIN)

    assert not feed.calls()


def test_what_is_over_takes_no_memory() -> None:
    feed = Feed()
    for number in range(300):
        for event in talk(now=BEGIN + number * MINUTE).events:
            feed.call(event, event.at)
        feed.told()

    assert len(feed.share._calls.known) < 15
    assert len(feed.share._calls.cells) < 85
    assert len(feed.share._told) < 2000


def test_only_what_has_changed_is_told() -> None:
    feed = Feed()
    for event in talk(now=BEGIN).events:
        feed.call(event, event.at)

    assert feed.told()
    assert not feed.told()


# --- delays ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 600_000), min_size=1, max_size=300), st.floats(0, 1))
def test_a_quantile_is_within_two_percent_or_a_millisecond(delays: list[int], q: float) -> None:
    counts: dict[str, int] = defaultdict(int)
    for each in delays:
        counts[bucket(each)] += 1
    exact = sorted(delays)[max(1, -int(-q * len(delays) // 1)) - 1]

    found = quantile(counts, q)
    assert found is not None
    assert abs(found - exact) <= max(1, 0.0201 * exact)


def test_bounds_are_what_the_documents_say() -> None:
    assert BOUNDS[:5] == [0, 1, 2, 3, 4]
    assert all(1 < after / before <= 1.04 for before, after in itertools.pairwise(BOUNDS[26:]))


def test_a_bucket_of_another_version_counts_for_nothing() -> None:
    assert quantile({"1000": 0, "nonsense": 5}, 0.5) is None
