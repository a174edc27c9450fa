"""E19: this version beside the next one, as processes on a real broker and real tables.

The next one knows fields, a kind of change and a type of event that this one does not.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from events.registrations import Claimed
from events.topics import BINDINGS, DEAD, REGISTRATIONS
from events.wire import cloud_event, encode
from ramal.backends import KafkaServer, MySQLServer
from registrar.truths import CLAIMED
from runtime.config import Kafka
from runtime.database.mysql import MySQLDatabase
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append
from tests.chaos.services import NEXT, Services
from tests.kit.locator import mysql_settings

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200)]

ALICE = "alice@example.test"
DESK, MOBILE = "sip:alice@192.0.2.4:5062", "sip:alice@192.0.2.9"
NEXT_KIND = {"RAMAL_NEXT_KIND": "true"}


class Site:
    """One partition, and the table that edges read."""

    def __init__(self, services: Services, mysql: MySQLServer, database: str) -> None:
        self.services, self.log = services, services.log
        self._connect = lambda: pymysql.connect(
            host=mysql.host, port=mysql.port, user=mysql.user, password=mysql.password, database=database
        )

    def rows(self) -> dict[str, int]:
        """By contact, when each ends."""
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT contact, expires_ms FROM location")
            return dict(cursor.fetchall())

    async def projected(self, *contacts: str) -> dict[str, int]:
        """The rows, once they are those of these contacts and of the last truth."""
        async with asyncio.timeout(30):
            while True:
                last = json.loads((await self.services.records(REGISTRATIONS))[-1].value or b"{}")
                ends = {b["contact"]: b["expires"] for b in last.get("state", {}).get("bindings", ())}
                if (rows := self.rows()) == ends and set(rows) == set(contacts):
                    return rows
                await asyncio.sleep(0.1)

    async def snapshot(self) -> dict[str, Any]:
        """alice's last state in `bindings`."""
        [*_, last] = [r for r in await self.services.records(BINDINGS) if r.key == ALICE.encode()]
        assert last.value, "a tombstone"
        state: dict[str, Any] = json.loads(last.value)
        return state


@pytest.fixture
async def site(
    kafka: KafkaServer, mysql: MySQLServer, fresh_database: str, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[Site]:
    database = MySQLDatabase(mysql_settings(mysql, fresh_database))
    await database.start()
    await database.migrate()
    await database.stop()
    log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), topic_prefix, 1, "test")
    await log.start()
    environ = {
        "RAMAL_TOPIC_PREFIX": topic_prefix,
        "RAMAL_MYSQL_HOST": mysql.host,
        "RAMAL_MYSQL_PORT": str(mysql.port),
        "RAMAL_MYSQL_USER": mysql.user,
        "RAMAL_MYSQL_PASSWORD": mysql.password,
        "RAMAL_MYSQL_DATABASE": fresh_database,
    }
    services = Services(log, kafka.bootstrap, tmp_path, environ)
    try:
        await log.create_topics(1)
        yield Site(services, mysql, fresh_database)
    finally:
        services.kill_all()
        await log.stop()


def told(state: dict[str, Any]) -> tuple[int | None, list[tuple[str, str | None]]]:
    """What a state says in the next version's fields."""
    return state.get("x_revision"), [(b["contact"], b.get("x_proof")) for b in state.get("bindings", ())]


async def test_e19_unknown_fields_outlive_the_older_version_in_truths_snapshots_and_restores(site: Site) -> None:
    services = site.services
    services.start("locator-1", service="locator")
    services.start("newer", program=NEXT)
    assert told(await services.state(ALICE, DESK)) == (7, [(DESK, "proven")])
    services.start("older")
    await site.projected(DESK)
    services.stop("newer")
    assert told(await services.state(ALICE, MOBILE)) == (7, [(DESK, "proven"), (MOBILE, None)])
    assert (await services.state(ALICE, DESK))["bindings"][0]["x_proof"] == "proven"
    services.stop("older")
    assert told(await site.snapshot()) == (7, [(DESK, "proven"), (MOBILE, None)])
    await site.projected(DESK, MOBILE)
    services.start("newer", program=NEXT)
    assert told(await services.state(ALICE, MOBILE)) == (7, [(DESK, "proven"), (MOBILE, "proven")])
    await site.projected(DESK, MOBILE)
    assert await services.records(DEAD) == []


async def test_e19_an_unknown_kind_stops_older_readers_and_registrars_until_newer_ones_come(site: Site) -> None:
    services = site.services
    services.start("locator-old", service="locator")
    services.start("newer", program=NEXT, **NEXT_KIND)
    await services.register(ALICE, DESK)
    before = await site.projected(DESK)
    await services.register(ALICE, DESK)  # "renewed"
    assert "is not known" in await services.stopped("locator-old")
    await services.register(ALICE, MOBILE)
    assert site.rows() == before, "nothing behind it is applied"
    services.stop("locator-old")
    services.start("locator-new", service="locator", program=NEXT, **NEXT_KIND)
    await site.projected(DESK, MOBILE)

    # Back in the wrong order, or without a snapshot between: the older registrar stops, and leaves all as it is.
    await services.register(ALICE, DESK)
    services.kill_all()
    snapshots = [(r.key, r.value) for r in await services.records(BINDINGS)]
    services.start("older")
    assert "is not known" in await services.stopped("older")
    services.stop("older")
    assert [(r.key, r.value) for r in await services.records(BINDINGS)] == snapshots
    services.start("newer", program=NEXT, **NEXT_KIND)
    assert await services.register(ALICE) == [DESK, MOBILE]
    assert await services.records(DEAD) == []


async def test_e19_an_unknown_event_stops_registrar_and_locator_and_is_no_dead_letter(site: Site) -> None:
    services = site.services
    services.start("locator-1", service="locator")
    services.start("older")
    await services.register(ALICE, DESK)
    rows = await site.projected(DESK)
    services.stop("older")
    claim = Append(REGISTRATIONS, 0, None, encode(Claimed("newer:boot")), cloud_event(CLAIMED, "registrar", "newer:0"))
    [position] = await site.log.append([claim])
    headers = (*cloud_event("ramal.BindingsMoved", "registrar", "id"), ("s", b"1"), ("c", b"%d" % position.offset))
    event = encode({"type": "ramal.BindingsMoved", "id": "id", "aor": ALICE, "to": "bob@example.test"})
    await site.log.append([Append(REGISTRATIONS, 0, ALICE.encode(), event, headers)])
    assert f"offset {position.offset + 1} is not known" in await services.stopped("locator-1")
    snapshots = [(r.key, r.value) for r in await services.records(BINDINGS)]
    services.start("older")
    assert f"offset {position.offset + 1} is not known" in await services.stopped("older")
    services.stop("older")
    assert [(r.key, r.value) for r in await services.records(BINDINGS)] == snapshots
    assert site.rows() == rows
    assert await services.records(DEAD) == []
