"""Windowed figures of registrations and log-ins, shares and the board: in any order, and however often records come."""

from typing import Any

import pytest

from cdr.statistics.board import Board
from cdr.statistics.calls import MINUTE
from cdr.statistics.online import OTHER, most, product
from cdr.statistics.share import Share
from events.registrations import Claimed
from events.stats import CallStatistics, LoginStatistics, RegistrationStatistics
from events.topics import CALLS, REGISTRATIONS
from events.wire import CLAIM, cloud_event, encode
from tests.kit.call_stories import talk
from tests.kit.feed import BEGIN, GRACE, KEPT, Feed, failed
from tests.kit.statistics import registered

# --- registrations ---------------------------------------------------------------------------------------------------


def truth(feed: Feed, timestamp: int, value: bytes, claim: int = 0) -> None:
    headers = (*cloud_event("ramal.BindingsRecorded", "registrar", "id"), (CLAIM, str(claim).encode()))
    feed.put(REGISTRATIONS, timestamp, headers, value)


def claimed(feed: Feed, timestamp: int) -> None:
    feed.put(REGISTRATIONS, timestamp, cloud_event("ramal.Claimed", "registrar", "id"), encode(Claimed("r")))


def test_bindings_are_counted_by_transport_and_product_at_the_end_of_each_minute() -> None:
    feed = Feed()
    claimed(feed, BEGIN)
    truth(feed, BEGIN + 1, registered("alice@example.test", ("udp", "Linphone/4.5 (belle)"), ("wss", "JsSIP 3.10.1")))
    truth(feed, BEGIN + 2, registered("bob@example.test", ("udp", "Linphone/5.0")))
    truth(feed, BEGIN + MINUTE, registered("bob@example.test"))
    feed.told(BEGIN + 3 * MINUTE)

    first, second, *_, last = feed.board.registrations(60, 0, 1 << 60)
    assert (first.online, first.transports, first.agents) == (3, {"udp": 2, "wss": 1}, {"Linphone": 2, "JsSIP": 1})
    assert (second.start, second.online) == (BEGIN + MINUTE, 2)
    assert (last.start, last.online, last.transports) == (BEGIN + 3 * MINUTE, 2, {"udp": 1, "wss": 1})
    assert feed.board.registrations(3600, 0, 1 << 60)[-1].online == 2


def test_a_record_of_an_older_claim_counts_for_nothing() -> None:
    feed = Feed()
    claimed(feed, BEGIN)
    claimed(feed, BEGIN)
    truth(feed, BEGIN, registered("alice@example.test", ("udp", "")), claim=1)
    truth(feed, BEGIN, registered("alice@example.test"), claim=0)
    feed.told()

    assert [each.online for each in feed.board.registrations(60, 0, 1 << 60)] == [1]


def test_a_repeated_truth_changes_nothing_and_an_empty_domain_is_told_once() -> None:
    feed = Feed()
    claimed(feed, BEGIN)
    for _ in range(3):
        truth(feed, BEGIN, registered("alice@example.test", ("udp", "x")))
    truth(feed, BEGIN + 1, registered("alice@example.test"))
    told = feed.told()

    assert [each.online for each in told if isinstance(each, RegistrationStatistics)] == [0, 0]
    assert not feed.told(BEGIN + 10 * MINUTE)


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("Linphone/4.5.0 (belle-sip/4.5)", "Linphone"),
        ("Yealink SIP-T46S 66.86.0.15", "Yealink SIP-T46S"),
        ("baresip v1.0.0 (x86_64/linux)", "baresip"),
        ("Grandstream GXP2170 1.0.11.64", "Grandstream GXP2170"),
        ("Z 5.6.1 v2.10.19.9", "Z"),
        ("", "unknown"),
        ("  ", "unknown"),
        ("1.2.3", "1.2.3"),
        ("/", "unknown"),
        ("x" * 300, "x" * 40),
    ],
)
def test_an_agent_is_its_product(agent: str, name: str) -> None:
    assert product(agent) == name


def test_the_rarest_agents_are_told_as_others() -> None:
    agents = {f"agent-{number}": number + 1 for number in range(80)}

    told = most(agents)
    assert len(told) == 51
    assert sum(told.values()) == sum(agents.values())
    assert most(told) == told
    assert OTHER in told


def test_failed_log_ins_count_once_by_reason() -> None:
    feed = Feed()
    for number in range(3):
        failed(feed, BEGIN + number, f"id-{number}")
    failed(feed, BEGIN + 5, "id-0")
    failed(feed, BEGIN + MINUTE, "id-9", "locked out")
    failed(feed, BEGIN + MINUTE, "id-1")
    feed.told()

    first, second = feed.board.logins(60, 0, 1 << 60)
    assert (first.failed, first.reasons) == (3, {"wrong response": 3})
    assert (second.failed, second.reasons) == (1, {"locked out": 1})
    assert feed.board.logins(3600, 0, 1 << 60)[-1].failed == 4


# --- shares and the board --------------------------------------------------------------------------------------------


def test_a_gap_is_seen_a_copy_is_passed_over_and_garbage_is_counted() -> None:
    share = Share(0, GRACE)
    share.begin(CALLS, 5)
    value = encode(talk(now=BEGIN).events[0])

    assert not share.is_next(CALLS, 7)
    assert share.take(CALLS, 4, BEGIN, (), value).copies == 1
    assert share.take(CALLS, 5, BEGIN, (), value).taken == 1
    assert share.take(CALLS, 6, BEGIN, (), b"{").unreadable == 1
    assert share.is_next(CALLS, 7)


def test_of_two_records_of_a_partition_the_one_that_knows_more_counts_in_any_order() -> None:
    common: dict[str, Any] = {"start": BEGIN, "seconds": 60, "domain": "example.test"}
    old = CallStatistics(**common, partition=0, through=10, attempts=3)
    new = CallStatistics(**common, partition=0, through=20, attempts=5)
    other = CallStatistics(**common, partition=1, through=2, attempts=1)
    for order in ([old, new, other], [new, other, old]):
        board = Board(KEPT)
        for each in order:
            board.take(each)
        assert board.calls(60, 0, 1 << 60)[0].attempts == 6


def test_the_board_forgets_old_windows() -> None:
    board = Board({60: 10 * MINUTE, 3600: 10 * 60 * MINUTE})
    for number in range(100):
        board.take(
            LoginStatistics(start=BEGIN + number * MINUTE, seconds=60, domain="d", partition=0, through=1, failed=1)
        )

    assert len(board.logins(60, 0, 1 << 60)) <= 11
