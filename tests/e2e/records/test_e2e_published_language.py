"""What is on the log's topics is what is published of them: schemas and CloudEvents 1.0 (CHECKLIST C01, C02)."""

import asyncio
import json
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from events.topics import ANALYTICS_CHANGELOG, CALLS, CDRS, DEAD, TOPICS
from ramal.system import system_at
from runtime.config import Sources
from runtime.log.port import Log, Record
from tests.e2e.conftest import CALLERS, DOMAIN, System
from tests.kit.phone import SDP

pytestmark = pytest.mark.e2e

DOCUMENTS = Path(__file__).parents[3] / "docs" / "events"
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
URI_REFERENCE = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((DOCUMENTS / f"{name}.json").read_text()))


@cache
def attributes() -> jsonschema.Draft202012Validator:
    document = json.loads((DOCUMENTS / "asyncapi.json").read_text())
    return jsonschema.Draft202012Validator(document["components"]["schemas"]["cloudevents"])


async def written(system: System) -> dict[str, list[Record]]:
    """Every record of every topic but `dead`, which has what others wrote, and Faust's own."""
    data = Path(system.where[1]) if system.where else None
    found: dict[str, list[Record]] = {}
    async with system_at(data, Sources.read(system.environ)).log() as log:
        for topic in (topic.name for topic in TOPICS if topic.name not in (DEAD, ANALYTICS_CHANGELOG)):
            for number in range(await log.partitions(topic)):
                found.setdefault(topic, []).extend(await of(log, topic, number))
    return found


async def of(log: Log, topic: str, number: int) -> list[Record]:
    bounds = await log.bounds(topic, number)
    return [r async for batch in log.read(topic, number, bounds.begin, bounds.end) for r in batch]


def test_c01_c02_every_record_of_every_topic_is_what_is_published_of_its_type(system: System) -> None:
    with system.phone(CALLERS[20]) as alice, system.phone(CALLERS[21], transport="tcp") as bob:
        alice.register()
        bob.register()
        call = alice.invite(bob.aor)
        incoming = bob.incoming()
        incoming.respond(200, body=SDP)
        call.hears(200)
        call.ack()
        incoming.gets("ACK")
        call.request("BYE")
        incoming.respond(200, to=incoming.gets("BYE"))
        call.hears(200)
        nobody = alice.invite(f"sip:nobody-here@{DOMAIN}")
        nobody.hears(404)
        nobody.ack()
        bob.deregister()  # a flow that ends, too
    topics, deadline = asyncio.run(written(system)), time.monotonic() + 20
    while call.call_id.encode() not in [record.key for record in topics[CDRS]]:
        assert time.monotonic() < deadline, "the call has no record"
        topics = asyncio.run(written(system))

    kinds = set()
    for topic, records in topics.items():
        texts: dict[tuple[str, str], bytes | None] = {}
        for record in records:
            if record.value is None and not record.headers:
                continue  # a tombstone
            names = [name for name, _ in record.headers]
            said = {name: value.decode() for name, value in record.headers}
            assert len(names) == len(said), (topic, names)
            wrong = [error.message for error in attributes().iter_errors(said)]
            assert not wrong, (topic, record.key, (record.value or b"")[:200])
            assert URI_REFERENCE.fullmatch(said["ce_source"])
            assert said.get("ce_subject") != "", said
            for name, form in (("ce_time", RFC3339), ("ce_traceparent", TRACEPARENT)):
                assert name not in said or form.fullmatch(said[name]), said
            kinds.add(said["ce_type"])
            first = texts.setdefault((said["ce_source"], said["ce_id"]), record.value)
            assert first == record.value, (topic, said["ce_id"])  # one source, one id: one event, written twice
            if record.value is not None:
                value: dict[str, Any] = json.loads(record.value)
                assert value.get("type", said["ce_type"]) == said["ce_type"], topic
                validator(said["ce_type"]).validate(value)
    assert topics[CALLS]
    assert {"ramal.Authenticate", "ramal.FindUser", "ramal.BindingsRecorded", "ramal.CallAnswered"} <= kinds
    assert {"ramal.EdgeLease", "ramal.RegisterContacts"} <= kinds
