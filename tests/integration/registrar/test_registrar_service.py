"""The registrar as a service: a worker, the timer and snapshots over a log, alone and in company."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from events.commands import Contact, RegisterContacts, Registration, ReplyTo
from events.registrations import BindingsRecorded
from events.topics import BINDINGS, REGISTRAR_COMMANDS, REGISTRATIONS, partition_of
from events.wire import Decoder, cloud_event, encode
from ramal.backends import KafkaServer
from registrar import truths
from registrar.config import Policy
from registrar.handler import RegistrarHandler
from registrar.service import RegistrarService, build
from runtime.config import Kafka, Sources
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append, Log
from runtime.store import EmbeddedStore

PARTITIONS = 4
Logs = Callable[[], Awaitable[Log]]
read_truth: Decoder[BindingsRecorded] = Decoder(BindingsRecorded)


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.integration)])
async def logs(request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> AsyncIterator[Logs]:
    """Makes started logs on one fresh set of topics."""
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "kafka":
            server: KafkaServer = request.getfixturevalue("kafka")

            def new() -> Log:
                return KafkaLog(Kafka(bootstrap=server.bootstrap), topic_prefix, PARTITIONS, "registrar-test")
        else:
            store = EmbeddedStore(tmp_path / "ramal.db")
            stack.push_async_callback(store.stop)

            def new() -> Log:
                return EmbeddedLog(store, PARTITIONS)

        async def make() -> Log:
            log = new()
            await log.start()
            stack.push_async_callback(log.stop)
            await log.create_topics(PARTITIONS)
            return log

        yield make


def register(number: int, cseq: int, expires: int | None = None) -> Append:
    aor = f"u{number}@example.test"
    command = RegisterContacts(
        f"id-{number}-{cseq}",
        ReplyTo("edge-1", "boot", int(time.time() * 1000) + 60_000),
        aor,
        aor,
        Registration(
            f"call-{number}", cseq, f"z9hG4bK{number}-{cseq}", (Contact(f"sip:u{number}@192.0.2.1", expires=expires),)
        ),
    )
    return Append(
        REGISTRAR_COMMANDS,
        partition_of(aor, PARTITIONS),
        aor.encode(),
        encode(command),
        cloud_event("ramal.RegisterContacts", "test", command.id),
    )


async def read_truths(log: Log) -> list[BindingsRecorded]:
    """What is true by now, over all partitions."""
    found = []
    for partition in range(PARTITIONS):
        highest = -1
        bounds = await log.bounds(REGISTRATIONS, partition)
        async for batch in log.read(REGISTRATIONS, partition, bounds.begin, bounds.end):
            for record in batch:
                claim = truths.claim_of(record)
                if claim >= highest:
                    highest = claim
                    if not truths.is_claim(record.headers):
                        found.append(read_truth(record.value))
    return found


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110  # what is awaited happens on a broker
            await asyncio.sleep(0.02)


async def ready(*services: RegistrarService) -> None:
    async def are_ready() -> bool:
        return not any(service.not_ready() for service in services)

    await until(are_ready)


def changes(found: list[BindingsRecorded]) -> list[tuple[str, str]]:
    return sorted((truth.id, str(change.kind)) for truth in found for change in truth.changes)


async def test_commands_become_truths_and_survive_a_restart(logs: Logs):
    log = await logs()
    for life in range(2):
        service = RegistrarService(await logs(), Policy(), f"life-{life}", PARTITIONS)
        await service.start()
        await log.append([register(n, life + 1) for n in range(50)])

        async def all_done(count: int = 50 * (life + 1)) -> bool:
            return len(await read_truths(log)) == count

        await until(all_done)
        await ready(service)
        await service.stop(4.0)
    found = await read_truths(log)
    assert changes(found) == sorted(
        [(f"id-{n}-1", "created") for n in range(50)] + [(f"id-{n}-2", "refreshed") for n in range(50)]
    )


async def test_e20_e25_registrars_come_and_go_and_every_command_is_decided_once(logs: Logs):
    log = await logs()
    services = [RegistrarService(await logs(), Policy(snapshot_interval=0.2), f"r{n}", PARTITIONS) for n in range(3)]
    sent = 0

    async def send() -> None:
        nonlocal sent
        sent += 1
        await log.append([register(n, sent) for n in range(20)])

    async def all_done() -> bool:
        return len(await read_truths(log)) >= 20 * sent

    await services[0].start()
    await send()
    await services[1].start()
    await send()
    await until(all_done)
    await services[2].start()
    await send()
    await ready(*services)
    await send()
    await services[0].stop(4.0)
    await send()
    await until(all_done)
    await services[1].stop(4.0)
    await send()
    await until(all_done)
    await services[2].stop(4.0)
    found = await read_truths(log)
    assert len(found) == 20 * sent
    assert changes(found) == sorted(
        (f"id-{n}-{s}", "created" if s == 1 else "refreshed") for n in range(20) for s in range(1, sent + 1)
    )


async def test_e18_a_partition_lost_to_another_is_restored_without_any_traffic(logs: Logs) -> None:
    """Another registrar claimed it and wrote its snapshots; ours hears of it when it writes its own."""
    log = await logs()
    service = RegistrarService(await logs(), Policy(snapshot_interval=600), "ours", PARTITIONS)
    await service.start()
    try:
        await ready(service)
        for cseq in (1, 2):  # the second is not in the snapshots yet when the other comes
            await service._snapshot()
            await log.append([register(1, cseq)])

            async def is_decided(count: int = cseq) -> bool:
                return len(await read_truths(log)) == count

            await until(is_decided)
        number = register(1, 1).partition
        rival = RegistrarHandler(await logs(), Policy(), "rival", PARTITIONS)
        await rival.restore(number)
        await rival.snapshot()
        taken = rival.partitions[number].claim
        assert service.handler.partitions[number].claim < taken

        await service._snapshot()  # as its loop does

        async def is_claimed_again() -> bool:
            partition = service.handler.partitions.get(number)
            return partition is not None and partition.claim > taken

        await until(is_claimed_again)
        await ready(service)
        partition = service.handler.partitions[number]
        assert not partition.lost
        assert list(partition.states) == ["u1@example.test"]
        await service._snapshot()
        assert not partition.changed
        await log.append([register(1, 3)])

        async def is_refreshed() -> bool:
            return ("id-1-3", "refreshed") in changes(await read_truths(log))

        await until(is_refreshed)
    finally:
        await service.stop(4.0)


async def test_r31_the_timer_ends_a_binding_by_itself(logs: Logs):
    log = await logs()
    policy = Policy(min_expires=1, grace=0)
    service = RegistrarService(await logs(), policy, "r", PARTITIONS)
    await service.start()
    await log.append([register(1, 1, expires=1), register(2, 1)])

    async def expired() -> bool:
        return "expired" in {kind for _, kind in changes(await read_truths(log))}

    await until(expired)
    await service.stop(4.0)
    assert sorted(kind for _, kind in changes(await read_truths(log))) == ["created", "created", "expired"]


async def test_the_settings_are_those_of_section_registrar(logs: Logs):
    sources = Sources({"RAMAL_REGISTRAR_MAX_CONTACTS": "3", "RAMAL_NAME": "r"}, {"registrar": {"grace": 5}})
    service = build(sources, await logs(), None)  # type: ignore[arg-type]  # it needs no tables
    assert (service.handler._policy.max_contacts, service.handler._policy.grace) == (3, 5)
    assert service.handler._writer.startswith("r:")


async def test_topics_with_another_partition_count_make_it_not_ready_and_nothing_is_decided(logs: Logs) -> None:
    log = await logs()
    service = RegistrarService(log, Policy(), "r", PARTITIONS + 1)
    await service.start()
    try:
        async with asyncio.timeout(20):
            while not any("partitions" in reason for reason in service.not_ready()):  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.05)
        assert (await log.bounds(REGISTRATIONS, 0)).end == 0
    finally:
        await service.stop(5.0)


@pytest.mark.integration
async def test_partitions_that_are_added_under_way_are_told_and_no_aor_has_two_states(
    kafka: KafkaServer, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one more partition most AORs have another place, for whoever asks Kafka: nobody may decide there."""
    monkeypatch.setattr("registrar.service.LOOK_SECONDS", 0.5)
    log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), topic_prefix, PARTITIONS, "registrar-test")
    await log.start()
    await log.create_topics(PARTITIONS)
    service = RegistrarService(log, Policy(), "r", PARTITIONS)
    await service.start()
    moved = [n for n in range(40) if partition_of(f"u{n}@example.test", PARTITIONS + 1) != register(n, 1).partition]
    try:
        await ready(service)
        await log.append([register(number, 1) for number in moved])

        async def all_decided() -> bool:
            return len(await read_truths(log)) == len(moved)

        await until(all_decided)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        grown = (REGISTRAR_COMMANDS, REGISTRATIONS, BINDINGS)
        await admin.create_partitions({topic_prefix + topic: NewPartitions(PARTITIONS + 1) for topic in grown})
        await admin.close()

        async def is_told() -> bool:
            return "has 5 partitions, not 4" in service.status()["topics"]

        await until(is_told)
        gone = [register(n, 2, 0)._replace(partition=partition_of(f"u{n}@example.test", 5)) for n in moved]
        positions = await log.append(gone)
        ends = {p.partition: p.offset + 1 for p in sorted(positions)}
        last = register(99, 1)
        await log.append([last])

        async def last_is_decided() -> bool:
            return any(truth.aor == "u99@example.test" for truth in await read_truths(log))

        await until(last_is_decided)

        async def all_are_handled() -> bool:
            done = {p.number: p.handled + 1 for p in service.handler.partitions.values()}
            return all(done.get(number, 0) >= end for number, end in ends.items() if number < PARTITIONS)

        await until(all_are_handled)
        found = [truth for truth in await read_truths(log) if truth.aor != "u99@example.test"]
        assert len(found) == len(moved)  # nobody was told that a binding is gone which stays where it was
        assert (await log.bounds(REGISTRATIONS, PARTITIONS)).end == 0
    finally:
        await service.stop(5.0)
        await log.stop()
