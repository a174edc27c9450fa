"""The log in Kafka, over aiokafka 0.14: its client, coordinator, admin and transactional producer.

Settings and the measurements behind them: docs/kafka.md and docs/architecture.md.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import TopicPartition

from events.topics import TOPICS, Topic
from runtime.config import Kafka
from runtime.errors import LogUnavailable
from runtime.log.kafka.append import Appender
from runtime.log.kafka.closing import close_client
from runtime.log.kafka.codes import LIST_OFFSETS, Then, meaning
from runtime.log.kafka.fetch import Fetcher, NoSuchOffset
from runtime.log.kafka.group import KafkaSubscription
from runtime.log.kafka.membership import committed_offsets, expel
from runtime.log.kafka.session import PROTOCOL, Client, Refused, begin, security
from runtime.log.kafka.topics import create_topics, kept, topic_faults
from runtime.log.kafka.transactions import Transactions
from runtime.log.port import (
    END_SECONDS,
    Append,
    Bounds,
    OutOfRange,
    Position,
    Reading,
    Record,
    Subscription,
    check_record,
)

EARLIEST, LATEST = -2, -1
LEADER_NOT_AVAILABLE, NETWORK_EXCEPTION = 5, 13
ASK_SECONDS = 5.0
RETRY_SECONDS = 0.2
NO_COORDINATOR_YET = (
    errors.GroupCoordinatorNotAvailableError,
    errors.GroupLoadInProgressError,
    errors.NotCoordinatorForGroupError,
)
"""Of a fresh cluster, and while a group moves to another broker."""
POLL_SECONDS = 0.5
FOLLOW_SECONDS = 30.0
"""Who reads for ever looks at nothing between two batches: each look is a wake-up."""
READ_RECORDS = 5000

log = logging.getLogger("ramal.log")


class KafkaLog:
    """See `runtime.log.port.Log`."""

    def __init__(self, kafka: Kafka, prefix: str, partitions: int, client_id: str, name: str = "") -> None:
        """`name`: of this process, the same after a restart and nobody else's; its place in consumer groups waits
        for it until the session's time-out."""
        self._kafka, self._prefix, self._count, self._client_id = kafka, prefix, partitions, client_id
        self._name = name
        self._client: Client | None = None
        self._appender: Appender | None = None
        self._subscriptions: set[KafkaSubscription] = set()
        self._security = security(kafka)
        self.away = ""
        """Why `start` still waits."""
        self._transactions = Transactions(kafka, self._security, prefix, client_id)

    # --- life ---------------------------------------------------------------

    async def start(self) -> None:
        """Connects; waits for the cluster, however long it takes, and says so once.

        Raises LogUnavailable where the cluster is there and will not have us, or shows a wrong certificate.
        """
        if (self._kafka.security_protocol, self._kafka.sasl_mechanism) == ("SASL_PLAINTEXT", "PLAIN"):
            log.warning("the password crosses the network readable", extra={"setting": PROTOCOL})
        client = await self._connected()
        # Metadata of all topics: to ask for one that is missing makes it on many brokers, with their defaults.
        await client.set_topics([])
        self._client = client
        self._appender = Appender(client, self._prefix, self._kafka.request_timeout)

    async def stop(self, deadline: float = 3.0) -> None:
        """Leaves the groups and closes what is open, all at the same time."""
        client, appender = self._client, self._appender
        self._client = self._appender = None
        if appender:
            await appender.stop()
        leaving = (subscription.stop(deadline * 0.7) for subscription in tuple(self._subscriptions))
        await asyncio.gather(*leaving, self._transactions.stop(deadline * 0.7))
        if client:
            await close_client(client, deadline * 0.2)

    async def _connected(self) -> Client:
        said = False
        while True:
            client = self._new_client(self._kafka.request_timeout)
            try:
                await client.bootstrap()
            except Refused as error:
                await client.close()
                raise LogUnavailable(str(error)) from error
            except errors.KafkaError as error:
                await client.close()
                self.away = str(error.args[0] if error.args else error)
                if not said:
                    log.warning("the log is away", extra={"bootstrap": self._kafka.bootstrap, "cause": self.away})
                said = True
                await asyncio.sleep(RETRY_SECONDS)
            except BaseException:
                await client.close()
                raise
            else:
                if said:
                    log.warning("the log is back", extra={"bootstrap": self._kafka.bootstrap})
                return client

    def _new_client(self, request_timeout: float) -> Client:
        return Client(self._kafka, self._security, self._client_id, request_timeout)

    async def _new_group_client(self) -> Client:
        """Raises KafkaError. To join takes until all members have heard of it from their heartbeats."""
        client = self._new_client(max(self._kafka.request_timeout, self._kafka.session_timeout / 2))
        try:
            await client.bootstrap()
            await client.set_topics([])
        except BaseException:
            await close_client(client)
            raise
        return client

    # --- writing ------------------------------------------------------------

    async def append(self, records: Sequence[Append]) -> list[Position]:
        if self._appender is None:
            raise LogUnavailable("the log is not connected")
        return await self._appender.append(records)

    async def append_transaction(self, transactional_id: str, records: Sequence[Append]) -> None:
        for record in records:
            check_record(record)
        await self._transactions.append(transactional_id, records)

    # --- reading ------------------------------------------------------------

    def subscribe(
        self, topic: str, group: str, on_assigned: Callable[[int], None], on_revoked: Callable[[int], None]
    ) -> Subscription:
        subscription = KafkaSubscription(
            self._prefix + topic,
            self._prefix + group,
            self._new_group_client,
            lambda partition: self.bounds(topic, partition),
            self._kafka.session_timeout,
            self._kafka.request_timeout,
            on_assigned,
            on_revoked,
            self._name,
        )
        subscription.on_stop = self._subscriptions.discard
        self._subscriptions.add(subscription)
        return subscription

    def read(
        self, topic: str, partition: int, begin: int, end: int | None = None, *, committed: bool = False
    ) -> Reading:
        return self._read(topic, partition, begin, end, committed)

    async def _read(
        self, topic: str, partition: int, begin: int, end: int | None, committed: bool
    ) -> AsyncGenerator[Sequence[Record], None]:
        client, timeout = self._connected_client(), self._kafka.request_timeout
        fetcher = Fetcher(client, self._prefix + topic, timeout, committed=committed)
        idle_since: float | None = None
        wait = FOLLOW_SECONDS if end is None else POLL_SECONDS
        try:
            fetcher.begin(partition, max(begin, (await self.bounds(topic, partition)).begin))
            while end is None or fetcher.position(partition) < end or fetcher.holding:
                try:
                    records = (await fetcher.poll(wait, READ_RECORDS)).get(partition)
                except NoSuchOffset as gone:
                    fetcher.begin(partition, await self._restart(topic, gone))
                    continue
                except LogUnavailable:
                    if end is not None:
                        raise
                    continue  # an endless reader waits for the log to come back
                if records:
                    idle_since = None
                    if end is not None and records[-1].offset >= end:
                        if records := [record for record in records if record.offset < end]:
                            yield records
                        return
                    yield records
                elif end is not None:
                    now = asyncio.get_running_loop().time()
                    idle_since = idle_since or now
                    if now - idle_since > END_SECONDS:
                        await self._check_end(topic, partition, end)
        finally:
            await fetcher.stop()

    async def _check_end(self, topic: str, partition: int, end: int) -> None:
        """Raises OutOfRange when the log ends before."""
        there = (await self.bounds(topic, partition)).end
        if there < end:
            raise OutOfRange(partition, end, there)

    async def _restart(self, topic: str, gone: NoSuchOffset) -> int:
        """Where to go on after retention has deleted our position, or the topic was made anew."""
        try:
            bounds = await self.bounds(topic, gone.partition)
        except LogUnavailable:
            await asyncio.sleep(POLL_SECONDS)
            return gone.offset
        log.warning("a position is out of the log's range", extra={"topic": topic, "offset": gone.offset})
        return bounds.begin if gone.offset < bounds.begin else bounds.end

    async def bounds(self, topic: str, partition: int) -> Bounds:
        begin = await self._offset(topic, partition, EARLIEST)
        return Bounds(begin, await self._offset(topic, partition, LATEST))

    async def offset_at(self, topic: str, partition: int, timestamp: int) -> int:
        found = await self._offset(topic, partition, timestamp)
        return found if found >= 0 else await self._offset(topic, partition, LATEST)

    async def _offset(self, topic: str, partition: int, timestamp: int) -> int:
        """ListOffsets of committed records; -1 where no record is as young."""
        client, there = self._connected_client(), TopicPartition(self._prefix + topic, partition)
        why = ""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                while True:
                    code, why, offset = await _ask_offset(client, there, timestamp)
                    if code == 0:
                        return offset
                    _, then, stale, _ = meaning(LIST_OFFSETS, code)
                    if then is Then.REFUSE:
                        break
                    if stale:
                        client.force_metadata_update()
                    await asyncio.sleep(0.1)
        except (TimeoutError, OSError) as error:
            raise LogUnavailable(f"the log does not say its offsets of {topic}: {why or 'no answer'}") from error
        raise LogUnavailable(f"the log does not say its offsets of {topic}: {why}")

    # --- topics and groups -----------------------------------------------------

    async def partitions(self, topic: str) -> int:
        found = await self._partitions(topic) or await self._partitions(topic, anew=True)
        if not found:
            raise KeyError(f"there is no topic {topic}")
        return found

    async def _partitions(self, topic: str, *, anew: bool = False) -> int:
        """As far as we know now, or after asking the cluster; 0 when there is no such topic."""
        client = self._connected_client()
        if anew:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    known = await client.force_metadata_update()
            except TimeoutError:
                known = False
            if not known:
                raise LogUnavailable("the log does not say what topics it has")
        return len(client.cluster.partitions_for_topic(self._prefix + topic) or ())

    async def create_topics(self, partitions: int, topics: Sequence[Topic] = TOPICS) -> list[str]:
        async with self._admin() as admin:
            made = await create_topics(admin, self._kafka, self._prefix, partitions, topics)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                # The brokers hear of new topics one after the other.
                for name in made:
                    while not await self._partitions(name, anew=True):  # noqa: ASYNC110  # the cluster sends no event
                        await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError as error:
            raise LogUnavailable("the new topics did not appear in time") from error
        return made

    async def check_topics(self, partitions: int, topics: Sequence[Topic] = TOPICS) -> list[str]:
        async with self._admin() as admin:
            return await topic_faults(admin, self._kafka, self._prefix, partitions, topics)

    async def kept(self, topic: Topic) -> int | None:
        async with self._admin() as admin:
            return await kept(admin, topic, self._prefix + topic.name)

    async def committed(self, topic: str, group: str) -> dict[int, int]:
        with _of_group(group):
            async with asyncio.timeout(ASK_SECONDS):
                while True:
                    with contextlib.suppress(*NO_COORDINATOR_YET):
                        client = self._connected_client()
                        return await committed_offsets(client, self._prefix + group, self._prefix + topic)
                    await asyncio.sleep(RETRY_SECONDS)

    async def expel(self, group: str, name: str) -> bool:
        """Has a process that will not come back leave a group: its partitions go to the others at once.

        False when the group has no member of this name. Raises LogUnavailable.
        """
        with _of_group(group):
            async with asyncio.timeout(ASK_SECONDS):
                return await expel(self._connected_client(), self._prefix + group, name)

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(
            bootstrap_servers=self._kafka.brokers,
            client_id=self._client_id,
            request_timeout_ms=int(ASK_SECONDS * 1000),
            **self._security,
        )
        try:
            await begin(admin._client, self._kafka, self._security)  # noqa: SLF001  # in place of its start()
            yield admin
        except (errors.KafkaError, OSError) as error:
            raise LogUnavailable(f"the log does not answer: {type(error).__name__}") from error
        finally:
            await close_client(admin._client)  # noqa: SLF001

    def _connected_client(self) -> Client:
        if self._client is None:
            raise LogUnavailable("the log is not connected")
        return self._client


@contextlib.contextmanager
def _of_group(group: str) -> Iterator[None]:
    """What a group's coordinator says, or that it says nothing, as LogUnavailable."""
    try:
        yield
    except (TimeoutError, errors.KafkaError, OSError) as error:
        raise LogUnavailable(f"the group {group} does not answer: {type(error).__name__}") from error


async def _ask_offset(client: Client, there: TopicPartition, timestamp: int) -> tuple[int, str, int]:
    """What a partition's leader answers to ListOffsets: error code, its name, offset."""
    node = client.cluster.leader_for_partition(there)
    if node is None or node < 0:
        return LEADER_NOT_AVAILABLE, "nobody leads it", -1
    try:
        response = await client.send(node, OffsetRequest(-1, 1, [(there.topic, [(there.partition, timestamp)])]))
    except errors.KafkaError as error:
        return NETWORK_EXCEPTION, str(error), -1
    [(_, [(_, code, *rest)])] = response.topics
    return code, meaning(LIST_OFFSETS, code).name, int(rest[-1])
