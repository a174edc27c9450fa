"""What the log in Kafka promises when the broker does not: hung, killed, away at start, refusing.

Over 400 lines: what only Kafka promises, on the brokers of one fixture.
"""

import asyncio
import contextlib
import gc
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import ConnectionGroup
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from events.topics import AUDIT, BINDINGS, REGISTRAR_COMMANDS
from ramal.backends import KafkaServer, start_kafka
from runtime.config import Kafka
from runtime.errors import LogRefused, LogUnavailable, Rebalancing
from runtime.log.kafka.group import KafkaSubscription
from runtime.log.kafka.log import KafkaLog
from runtime.log.kafka.session import Client
from runtime.log.port import Append, Log, Record, Subscription, Unreadable
from tests.kit.stopping import standing_still

pytestmark = pytest.mark.integration

TOPIC = REGISTRAR_COMMANDS
REQUEST_TIMEOUT = 1.0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own-kafka")


@pytest.fixture(scope="module")
def own(directory: Path) -> Iterator[list[KafkaServer]]:
    """A broker of this module's own, to be stopped and killed; in a list, so that a test may put another there."""
    servers = [start_kafka(directory)]
    yield servers
    servers[0].child.kill()


@contextlib.asynccontextmanager
async def opened(server: KafkaServer, prefix: str) -> AsyncIterator[KafkaLog]:
    settings = Kafka(bootstrap=server.bootstrap, request_timeout=REQUEST_TIMEOUT, session_timeout=6.0)
    log = KafkaLog(settings, prefix, 4, "test")
    await log.start()
    try:
        yield log
    finally:
        async with asyncio.timeout(5):
            await log.stop(3.0)


@contextlib.asynccontextmanager
async def administrator(server: KafkaServer) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


def record(number: int, partition: int = 0, topic: str = TOPIC) -> Append:
    return Append(topic, partition, b"key", str(number).encode())


def values(records: list[Record]) -> list[int]:
    return [int(r.value or b"-1") for r in records]


async def read_all(log: Log, topic: str, partition: int = 0, *, committed: bool = True) -> list[Record]:
    end = (await log.bounds(topic, partition)).end
    return [r async for batch in log.read(topic, partition, 0, end, committed=committed) for r in batch]


async def appended(log: Log, *records: Append) -> None:
    """Once the log is back."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(LogUnavailable):
                await log.append(records)
                return


async def polled(subscription: Subscription, *wanted: int) -> list[int]:
    """All values until those wanted have come; the log may be away meanwhile."""
    got: list[int] = []
    async with asyncio.timeout(40):
        while not set(wanted) <= set(got):
            with contextlib.suppress(LogUnavailable):
                for records in (await subscription.poll(0.5)).values():
                    got += values(list(records))
    return got


def follow(log: Log, group: str = "g") -> Subscription:
    subscription: Subscription = log.subscribe(TOPIC, group, lambda p: subscription.begin(p, None), lambda _: None)
    return subscription


async def test_on_a_hung_broker_every_call_ends_in_time_and_all_recover_alone(
    own: list[KafkaServer], topic_prefix: str
) -> None:
    async with opened(own[0], topic_prefix) as log:
        await log.create_topics(4)
        subscription = follow(log)
        await appended(log, record(1))
        assert await polled(subscription, 1) == [1]
        await log.append_transaction("t", [record(1, 0, BINDINGS)])
        with standing_still(own[0].pid):
            async with asyncio.timeout(REQUEST_TIMEOUT + 1):
                outcomes = await asyncio.gather(
                    *(log.append([record(n, n % 4)]) for n in range(100, 120)), return_exceptions=True
                )
            assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes)
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: log.append_transaction("t", [record(2, 0, BINDINGS)]),
                lambda: log.append_transaction("u", [record(2, 0, BINDINGS)]),
                lambda: log.bounds(TOPIC, 0),
                lambda: log.offset_at(TOPIC, 0, 0),
                lambda: log.committed(TOPIC, "g"),
                lambda: log.partitions("unheard.of"),
                lambda: subscription.commit({0: 1}),
                lambda: anext(log.read(TOPIC, 0, 0, 1)),
                lambda: anext(log.read(TOPIC, 0, 0, 1, committed=True)),
            ]
            async with asyncio.timeout(12):
                outcomes = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
            assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes), outcomes
            assert await log.partitions(TOPIC) == 4
        await appended(log, record(2))
        assert 2 in await polled(subscription, 2)
        await log.append_transaction("t", [record(3, 0, BINDINGS)])
        assert [n for n in await committed_until(log, 3) if n != 2] == [1, 3]
        async with asyncio.timeout(30):
            while True:  # its session may have ended meanwhile: then it is a member again soon
                with contextlib.suppress(Rebalancing):
                    await subscription.commit({0: 1})
                    return
                await subscription.poll(0.1)


async def test_stop_ends_in_time_while_the_broker_hangs(own: list[KafkaServer], topic_prefix: str) -> None:
    async with opened(own[0], topic_prefix) as log:
        await log.create_topics(4)
        subscription = follow(log)
        await appended(log, record(1))
        await polled(subscription, 1)
        await log.append_transaction("t", [record(1, 0, BINDINGS)])
        reading = asyncio.ensure_future(anext(log.read(TOPIC, 0, 5)))
        await asyncio.sleep(0.1)
        with standing_still(own[0].pid):
            appending = asyncio.create_task(log.append([record(2)]))
            await asyncio.sleep(0)
            reading.cancel()
            async with asyncio.timeout(3):
                await asyncio.wait({reading})
            async with asyncio.timeout(2.5):
                await subscription.stop(1.0)
            async with asyncio.timeout(3):
                await log.stop(2.0)
            with pytest.raises(LogUnavailable):
                await appending


async def test_a_killed_broker_that_comes_back_is_found_again(
    own: list[KafkaServer], topic_prefix: str, directory: Path
) -> None:
    async with opened(own[0], topic_prefix) as log:
        await log.create_topics(4)
        subscription = follow(log)
        followed: list[int] = []

        async def read_for_ever() -> None:
            async for batch in log.read(TOPIC, 0, 0):
                followed.extend(values(list(batch)))

        reading = asyncio.create_task(read_for_ever())
        await appended(log, record(1))
        assert await polled(subscription, 1) == [1]
        own[0].child.kill()
        async with asyncio.timeout(REQUEST_TIMEOUT + 1):
            with pytest.raises(LogUnavailable):
                await log.append([record(100)])
        own[0] = start_kafka(directory)
        await appended(log, record(2), record(3))
        assert {2, 3} <= set(await polled(subscription, 2, 3))
        await log.append_transaction("t", [record(1, 0, BINDINGS)])
        assert [v for v in followed if v in (1, 2, 3)] == [1, 2, 3]
        assert not reading.done()
        reading.cancel()
        await asyncio.wait({reading})


async def test_a_log_that_is_away_at_start_is_waited_for(
    own: list[KafkaServer], topic_prefix: str, directory: Path
) -> None:
    own[0].stop()
    settings = Kafka(bootstrap=own[0].bootstrap, request_timeout=REQUEST_TIMEOUT, session_timeout=6.0)
    log = KafkaLog(settings, topic_prefix, 4, "test")
    starting = asyncio.create_task(log.start())
    with pytest.raises(LogUnavailable):
        await log.append([record(1)])
    own[0] = start_kafka(directory)
    async with asyncio.timeout(20):
        await starting
        await log.create_topics(4)
    await appended(log, record(1))
    await log.stop()


async def test_a_record_that_the_broker_refuses_breaks_nothing_for_its_successors(
    own: list[KafkaServer], topic_prefix: str
) -> None:
    async with opened(own[0], topic_prefix) as log, administrator(own[0]) as admin:
        await log.create_topics(4)
        for topic in (TOPIC, BINDINGS):
            full = ConfigResource(
                ConfigResourceType.TOPIC,
                topic_prefix + topic,
                {"max.message.bytes": "2000", "message.timestamp.type": "LogAppendTime"},
            )
            await admin.alter_configs([full])
        large = Append(TOPIC, 1, b"k", b"x" * 5000)
        async with asyncio.timeout(20):
            with contextlib.suppress(LogRefused):
                while True:  # until the broker has heard of the change
                    await log.append([large])
        large = large._replace(partition=0)
        outcomes = await asyncio.gather(
            log.append([record(1)]),
            log.append([large]),
            log.append([record(2)]),
            log.append([record(3, 1)]),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [list, LogRefused, list, list]
        await log.append([record(4)])
        assert values(await read_all(log, TOPIC)) == [1, 2, 4]
        with pytest.raises(LogRefused):
            await log.append_transaction("t", [record(1, 0, BINDINGS), large._replace(topic=BINDINGS)])
        await log.append_transaction("t", [record(2, 0, BINDINGS)])
        assert await committed_until(log, 2) == [2]


async def test_aborted_and_open_transactions_are_hidden_from_committed_readers(
    own: list[KafkaServer], topic_prefix: str
) -> None:
    async with opened(own[0], topic_prefix) as log:
        await log.create_topics(4)
        full = topic_prefix + BINDINGS
        await log.append([record(1, 0, BINDINGS)])
        producer = AIOKafkaProducer(bootstrap_servers=own[0].bootstrap, transactional_id="other")
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait(full, b"2", key=b"k", partition=0)
        await producer.abort_transaction()
        await log.append([record(3, 0, BINDINGS)])
        assert await committed_until(log, 3) == [1, 3]
        assert values(await read_all(log, BINDINGS, committed=False)) == [1, 2, 3]
        await producer.begin_transaction()
        await producer.send_and_wait(full, b"4", key=b"k", partition=0)
        await log.append([record(5, 0, BINDINGS)])
        assert values(await read_all(log, BINDINGS)) == [1, 3]
        await producer.commit_transaction()
        assert await committed_until(log, 5) == [1, 3, 4, 5]
        await producer.stop()


async def committed_until(log: Log, last: int) -> list[int]:
    """The broker writes a transaction's markers behind its acknowledgement: what follows is seen a little later."""
    async with asyncio.timeout(20):
        while (found := values(await read_all(log, BINDINGS)))[-1:] != [last]:
            pass
    return found


async def test_a_position_that_was_deleted_continues_at_the_start(own: list[KafkaServer], topic_prefix: str) -> None:
    async with opened(own[0], topic_prefix) as log, administrator(own[0]) as admin:
        await log.create_topics(4)
        await log.append([record(n) for n in range(10)])
        await admin.delete_records({TopicPartition(topic_prefix + TOPIC, 0): RecordsToDelete(before_offset=6)})
        assert await log.bounds(TOPIC, 0) == (6, 10)
        assert values(await read_all(log, TOPIC)) == [6, 7, 8, 9]
        assert await log.offset_at(TOPIC, 0, 0) == 6
        subscription = follow(log)
        assert await polled(subscription, 9) == [6, 7, 8, 9]
        await log.append([record(n) for n in range(10, 20)])
        await admin.delete_records({TopicPartition(topic_prefix + TOPIC, 0): RecordsToDelete(before_offset=15)})
        subscription.seek(0, 2)
        assert await polled(subscription, 19) == [15, 16, 17, 18, 19]


async def test_topics_have_the_settings_they_need_and_faults_are_named(
    own: list[KafkaServer], topic_prefix: str
) -> None:
    async with opened(own[0], topic_prefix) as log, administrator(own[0]) as admin:
        await admin.create_topics([NewTopic(topic_prefix + AUDIT, 2, 1)])
        faults = await log.check_topics(4)
        assert any("registrar.commands is missing" in fault for fault in faults)
        await log.create_topics(4)
        faults = await log.check_topics(4)
        assert len(faults) == 3
        assert all(topic_prefix + AUDIT in fault for fault in faults)
        assert "2 partitions" in faults[0]
        assert "CreateTime" in faults[1]
        assert "retention.ms" in faults[2]
        assert await settings_of(admin, topic_prefix + TOPIC) >= {
            ("message.timestamp.type", "LogAppendTime"),
            ("retention.ms", str(24 * 3600 * 1000)),
            ("segment.ms", str(6 * 3600 * 1000)),
            ("min.insync.replicas", "1"),
            ("cleanup.policy", "delete"),
        }
        assert await settings_of(admin, topic_prefix + BINDINGS) >= {
            ("message.timestamp.type", "LogAppendTime"),
            ("cleanup.policy", "compact"),
            ("segment.bytes", str(32 * 1024 * 1024)),
            ("min.cleanable.dirty.ratio", "0.1"),
            ("max.compaction.lag.ms", "600000"),
        }


async def settings_of(admin: AIOKafkaAdminClient, topic: str) -> set[tuple[str, str]]:
    (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    return {(entry[0], entry[1]) for resource in response.resources for entry in resource[4]}


BATCH = struct.Struct(">qiibIh")
"""A batch's first fields: its offset, its length behind these two, leader epoch, version, checksum, attributes."""


def damage(directory: Path, topic: str, offset: int, kind: str) -> None:
    """Spoils the batch at this offset on the broker's disk, which sends it on as it is."""
    path = directory / "data" / f"{topic}-0" / f"{0:020}.log"
    octets = bytearray(path.read_bytes())
    at = 0
    while BATCH.unpack_from(octets, at)[0] != offset:
        at += 12 + BATCH.unpack_from(octets, at)[1]
    behind = at + 12 + BATCH.unpack_from(octets, at)[1]
    if kind == "checksum":
        octets[behind - 3] ^= 0xFF
    else:
        octets[at + 22] |= 0x07  # of the codecs 0 to 7, nobody has defined 5 to 7
        octets[at + 17 : at + 21] = calc_crc32c(bytes(octets[at + 21 : behind])).to_bytes(4, "big")
    with path.open("r+b") as file:
        file.write(octets)


@pytest.mark.parametrize("kind", ["checksum", "codec"])
@pytest.mark.parametrize("committed", [False, True])
async def test_what_is_no_batch_is_an_alarm_of_its_partition_and_the_others_go_on(
    own: list[KafkaServer], directory: Path, topic_prefix: str, kind: str, committed: bool
) -> None:
    async with opened(own[0], topic_prefix) as log:
        await log.create_topics(4)
        for number in range(4):
            await log.append([record(number)])
        damage(directory, topic_prefix + TOPIC, 2, kind)
        got: list[Record] = []

        async def read() -> None:
            async for batch in log.read(TOPIC, 0, 0, 4, committed=committed):
                got.extend(batch)

        with pytest.raises(Unreadable, match="partition 0: what is at offset 2 cannot be read"):
            await read()
        assert values(got) == [0, 1]
        got.clear()
        subscription = follow(log)

        async def poll() -> None:
            async with asyncio.timeout(20):
                while True:
                    for batch in (await subscription.poll(0.5)).values():
                        got.extend(batch)

        with pytest.raises(Unreadable, match="partition 0: what is at offset 2 cannot be read"):
            await poll()
        assert values(got) == [0, 1]
        await log.append([record(5, 1)])
        assert await polled(subscription, 5) == [5]
        subscription.begin(0, 3)
        assert await polled(subscription, 3) == [3]


async def test_a_commit_that_a_rebalance_prevents_is_to_be_offered_again(
    own: list[KafkaServer], topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(own[0], topic_prefix) as log:
        await log.create_topics(4)
        subscription = follow(log)
        assert isinstance(subscription, KafkaSubscription)
        await log.append([record(1)])
        await polled(subscription, 1)
        with monkeypatch.context() as patched:

            async def refuse(*_: object) -> None:
                raise errors.CommitFailedError

            patched.setattr(subscription._coordinator, "commit_offsets", refuse)
            with pytest.raises(Rebalancing):
                await subscription.commit({0: 1})
        await subscription.commit({0: 1})
        assert await log.committed(TOPIC, "g") == {0: 1}


async def test_who_still_asks_a_closed_client_opens_no_connection(own: list[KafkaServer], topic_prefix: str) -> None:
    async with opened(own[0], topic_prefix) as log:
        client = await log._new_group_client()
        node = client.get_random_node()
        assert await client.ready(node)
        connecting = asyncio.create_task(client.ready(node, group=ConnectionGroup.COORDINATION))
        await asyncio.sleep(0)
        await client.close()
        assert not await connecting
        assert not await client.ready(node)
        assert not any(connection.connected() for connection in client._conns.values())


@pytest.mark.parametrize(
    "ask",
    [
        lambda log: log._new_group_client(),
        lambda log: log.committed(TOPIC, "g"),
        lambda log: log.append_transaction("t", [record(1)]),
    ],
    ids=["a group", "what a group has committed", "a transaction"],
)
async def test_a_client_that_is_cancelled_while_it_begins_leaves_no_connection_open(
    own: list[KafkaServer], topic_prefix: str, ask: Callable[[KafkaLog], Coroutine[object, object, Client | None]]
) -> None:
    """What is left open warns when it is collected, and a warning is an error here."""
    async with opened(own[0], topic_prefix) as log:
        for number in range(100):
            beginning = asyncio.create_task(ask(log))
            await asyncio.sleep(number * 0.0003)
            beginning.cancel()
            with contextlib.suppress(asyncio.CancelledError, LogUnavailable):
                if isinstance(client := await beginning, Client):
                    await client.close()
        gc.collect()
