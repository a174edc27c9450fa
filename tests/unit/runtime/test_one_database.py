"""A consumer group writes to one database: who may join it, and which partitions somebody writes elsewhere."""

import asyncio
from collections.abc import Collection
from typing import cast

import pytest
from prometheus_client import REGISTRY

from events.topics import REGISTRATIONS
from runtime.database import one_database
from runtime.database.one_database import SURE_SECONDS, OneDatabase
from runtime.database.positions import Positions
from runtime.errors import DatabaseUnavailable, LogUnavailable
from runtime.log.port import Bounds, Log


class Site:
    """What the group has committed and what stands in the tables, by partition; `fault` instead of an answer."""

    def __init__(self, committed: dict[int, int], there: dict[int, int], ours: Collection[int] = ()) -> None:
        self.offsets, self.there, self.ours = committed, there, ours
        self.fault: Exception | None = None
        self.end = 1000
        self.now = 1000.0
        self.one = OneDatabase(
            cast(Log, self), REGISTRATIONS, "locator", cast(Positions, self), lambda: self.ours, "ramal rebuild",
            lambda: self.now,
        )  # fmt: skip

    async def committed(self, topic: str, group: str) -> dict[int, int]:
        assert (topic, group) == (REGISTRATIONS, "locator")
        if self.fault:
            raise self.fault
        return self.offsets

    async def bounds(self, topic: str, partition: int) -> Bounds:
        return Bounds(0, self.end)

    async def all(self) -> dict[int, int]:
        if self.fault:
            raise self.fault
        return self.there

    async def look_after(self, seconds: float) -> str:
        self.now += seconds
        await self.one.look()
        return self.one.reason


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_database, "ASK_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("committed", "there"),
    [
        pytest.param({}, {}, id="a first start"),
        pytest.param({}, {0: 0, 1: 0}, id="a group that has committed nothing"),
        pytest.param({0: 0}, {}, id="a log without records"),
        pytest.param({0: 70, 1: 5}, {0: 70, 1: 5}, id="a start like any other"),
        pytest.param({0: 70, 1: 5}, {0: 71, 1: 9}, id="a death before the commit"),
        pytest.param({0: 70, 1: 5}, {0: 3}, id="a dump, a failover to a replica that was behind, a rebuild"),
        pytest.param({}, {0: 70}, id="a Kafka that has forgotten the group's offsets"),
    ],
)
async def test_whose_tables_may_be_the_groups_joins_at_once(committed: dict[int, int], there: dict[int, int]) -> None:
    async with asyncio.timeout(5):
        await Site(committed, there).one.admitted()


@pytest.mark.parametrize("there", [{}, {0: 0, 1: 0}])
async def test_whose_tables_are_empty_stays_out_of_a_group_that_has_committed_until_they_are_rebuilt(
    there: dict[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    site = Site({0: 70, 1: 0}, there)
    joining = asyncio.create_task(site.one.admitted())
    async with asyncio.timeout(5):
        while not site.one.reason:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not joining.done()
    assert "RAMAL_MYSQL_DATABASE" in site.one.reason
    assert "`ramal rebuild`" in site.one.reason
    assert [each.levelname for each in caplog.records] == ["CRITICAL"], "said once, not at each look"
    site.there = {0: 70, 1: 0}
    async with asyncio.timeout(5):
        await joining
    assert site.one.reason == ""


@pytest.mark.parametrize("fault", [LogUnavailable("the log is away"), DatabaseUnavailable("no such table")])
async def test_while_nobody_can_say_whose_the_tables_are_nobody_joins(fault: Exception) -> None:
    site = Site({0: 70}, {0: 70})
    site.fault = fault
    joining = asyncio.create_task(site.one.admitted())
    async with asyncio.timeout(5):
        while not site.one.reason:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0)
        assert str(fault) in site.one.reason
        site.fault = None
        await joining
    assert site.one.reason == ""


async def test_partitions_of_others_that_stay_behind_what_was_committed_are_written_elsewhere() -> None:
    site = Site({0: 70, 1: 50, 2: 7}, {0: 70, 1: 20}, ours={0})
    assert await site.look_after(0) == ""
    site.offsets[1] += 5
    assert await site.look_after(SURE_SECONDS - 1) == ""
    reason = await site.look_after(1)
    assert "writes to another database" in reason
    assert "registrations 1, 2" in reason
    assert REGISTRY.get_sample_value("ramal_foreign_partitions", {"topic": REGISTRATIONS}) == 2
    site.ours = {0, 1, 2}
    assert await site.look_after(20) == "", "the other has gone; what it wrote elsewhere is ours to write now"
    assert REGISTRY.get_sample_value("ramal_foreign_partitions", {"topic": REGISTRATIONS}) == 0


async def test_tables_that_move_on_are_an_older_copy_and_no_other_database() -> None:
    site = Site({0: 700}, {0: 10})
    for at in range(20, 700, 20):
        site.there = {0: at}
        assert await site.look_after(SURE_SECONDS - 1) == ""


async def test_a_log_that_has_lost_its_end_has_nothing_that_the_tables_lack() -> None:
    site = Site({0: 700}, {0: 650})
    site.end = 650
    assert [await site.look_after(SURE_SECONDS) for _ in range(3)] == ["", "", ""]


async def test_our_own_partitions_are_never_another_members_and_a_stop_of_ours_is_no_alarm_of_this() -> None:
    site = Site({0: 700}, {0: 10}, ours={0})
    assert [await site.look_after(SURE_SECONDS) for _ in range(3)] == ["", "", ""]
    site.ours = ()
    assert await site.look_after(SURE_SECONDS) == "", "it is another's from now on"
    assert await site.look_after(SURE_SECONDS) != ""
