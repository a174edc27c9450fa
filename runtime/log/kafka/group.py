"""Membership of a Kafka consumer group: aiokafka's coordinator beside our own fetcher.

The coordinator joins, heartbeats, rebalances and commits. Its callbacks here only mark and
schedule: a partition delivers nothing until `begin`. What a position means (committed, below
the start, beyond the end) is settled in `poll`, since asking for it takes a round trip.

aiokafka's rebalances are eager: all partitions are revoked, then some assigned. But nobody else can have a
partition between two consecutive generations of the group while we are in both under one member id. So what is ours
in both was never lost: it goes on being delivered, and only the others are revoked. A restart of one member then
costs the others nothing.

With a name (static membership, KIP-345) somebody else can have our partitions within one generation: a process of our
name that joins is given another member id and what we had, without a rebalance. But then our member id is of no use
any more: we can come back only under a new one, to which nothing is kept. And a group that goes to its next generation
without waiting for us, as it does for a static member that is silent, has given to our member id, and to nobody else,
what we find there when we join late.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

from aiokafka import errors
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from runtime.errors import LogUnavailable, Rebalancing, Replaced
from runtime.log.kafka.closing import ABRUPT_SECONDS, close_client
from runtime.log.kafka.fetch import Fetcher, NoSuchOffset
from runtime.log.kafka.membership import Coordinator
from runtime.log.kafka.session import Client
from runtime.log.port import Batch, Bounds, OutOfRange

NEVER_MS = 10**15
"""Not 2**31: aiokafka would leave the group for ever after 24 days."""
COMMIT_DEADLINE = 2.0
CONFIRM_DEADLINE = 2.0
POSITION_DEADLINE = 5.0
RETRY_SECONDS = 0.1
HEARTBEAT_MS = 750
"""A heartbeat tells that a member came or left. Until then the partitions of one that left stand still, and a
phone waits no longer than 2 s: it must not grow with the session's time-out (CHECKLIST E20)."""

log = logging.getLogger("ramal.log")

NewClient = Callable[[], Awaitable[Client]]
AskBounds = Callable[[int], Awaitable[Bounds]]


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    def __init__(self, owner: "KafkaSubscription") -> None:
        self._owner = owner

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._owner.on_assigned({partition.partition for partition in assigned})

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._owner.on_revoked()


class KafkaSubscription:
    """See `runtime.log.port.Subscription`."""

    def __init__(
        self,
        topic: str,
        group: str,
        new_client: NewClient,
        bounds: AskBounds,
        session_timeout: float,
        request_timeout: float,
        on_assigned: Callable[[int], None],
        on_revoked: Callable[[int], None],
        name: str = "",
    ) -> None:
        """`name`, if there is one, is the `group.instance.id`."""
        self._topic, self._group = topic, group
        self._new_client, self._bounds = new_client, bounds
        self._session_ms = int(session_timeout * 1000)
        self._request_timeout = request_timeout
        self._tell_assigned, self._tell_revoked = on_assigned, on_revoked
        self._name = name
        self._client: Client | None = None
        self._coordinator: Coordinator | None = None
        self._fetcher: Fetcher | None = None
        self._assigned: frozenset[int] = frozenset()
        self._membership = ("", -1)
        """Our member id, and the generation of the group that `_assigned` is of."""
        self._joined = False
        self._replaced = False
        """Another process has joined under our name."""
        self._to_settle: dict[int, int | None] = {}
        self._changed = asyncio.Event()
        self._stopped = False
        self.on_stop: Callable[[KafkaSubscription], None] = lambda _: None

    def joined(self) -> bool:
        return self._joined

    def assigned(self) -> frozenset[int]:
        return self._assigned

    def begin(self, partition: int, offset: int | None) -> None:
        if partition in self._assigned:
            self.pause(partition)
            self._to_settle[partition] = offset
            self._changed.set()

    def seek(self, partition: int, offset: int) -> None:
        self.begin(partition, offset)

    def pause(self, partition: int) -> None:
        self._to_settle.pop(partition, None)
        if self._fetcher is not None:
            self._fetcher.end(partition)

    async def confirm(self, partition: int) -> None:
        try:
            async with asyncio.timeout(CONFIRM_DEADLINE):
                member = self._coordinator is not None and await self._coordinator.is_member()
        except TimeoutError:
            member = False
        if not member or partition not in self._assigned:
            raise LogUnavailable(f"the group {self._group} does not confirm that partition {partition} is ours")

    async def poll(self, timeout: float, max_records: int = 500) -> Batch:
        if self._coordinator is None and not self._stopped:
            await self._join(timeout)
        if self._coordinator is None or self._fetcher is None:
            return {}
        await self._check_group(self._coordinator)
        if self._replaced:
            await self._wait_for_change(timeout)
            raise Replaced(f"another process has joined the group {self._group} as {self._name} (RAMAL_NAME)")
        if self._to_settle:
            await self._settle_positions(self._fetcher)
        if self._stopped:
            return {}
        if not self._fetcher.active:
            await self._wait_for_change(timeout)
            return {}
        try:
            batch = await self._fetcher.poll(timeout, max_records)
        except NoSuchOffset as gone:
            # Deleted by retention since it was settled, or the topic was made anew: settle it again.
            self._to_settle[gone.partition] = gone.offset
            return {}
        return batch

    async def commit(self, offsets: Mapping[int, int]) -> None:
        ours = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "")
            for partition, offset in offsets.items()
            if partition in self._assigned
        }
        if not ours or self._coordinator is None:
            return
        try:
            async with asyncio.timeout(COMMIT_DEADLINE):
                await self._coordinator.commit_offsets(None, ours)
        except errors.CommitFailedError as error:
            # Of those that we lose, the next owner goes on from what it finds; some may stay ours.
            raise Rebalancing(f"the group {self._group} is being rebalanced") from error
        except (TimeoutError, errors.KafkaError) as error:
            raise LogUnavailable(f"a commit of {self._group} was not acknowledged") from error

    async def stop(self, deadline: float = 3.0) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._assigned = frozenset()
        self._to_settle.clear()
        self._changed.set()
        await self._close(deadline)
        self.on_stop(self)

    async def _check_group(self, coordinator: Coordinator) -> None:
        """Lets the coordinator try again after an error; one that has ended is given up, the next poll joins anew."""
        try:
            coordinator.check_errors()
        except errors.KafkaError as error:
            if coordinator._coordination_task.done():  # noqa: SLF001  # there is no other way to know
                log.error("the group's coordination broke; joining anew", extra={"group": self._group})
                self._lose(self._assigned)
                self._joined = False
                await self._close(ABRUPT_SECONDS)
            elif self._replaced:
                return
            raise LogUnavailable(f"the group {self._group} cannot be joined: {type(error).__name__}") from error

    async def _close(self, seconds: float) -> None:
        fetcher, coordinator, client = self._fetcher, self._coordinator, self._client
        self._fetcher = self._coordinator = self._client = None
        try:
            async with asyncio.timeout(seconds):
                if fetcher is not None:
                    await fetcher.stop()
                if coordinator is not None:
                    await coordinator.close()
        except (TimeoutError, errors.KafkaError):
            log.warning("left the group without a goodbye", extra={"group": self._group})
            await _abandon(coordinator)
        finally:  # also if whoever closes it is cancelled: nobody else has it any more
            if client is not None:
                await close_client(client, ABRUPT_SECONDS)

    async def _join(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout + 1):
                client = await self._new_client()
        except (TimeoutError, errors.KafkaError) as error:
            await asyncio.sleep(RETRY_SECONDS)
            raise LogUnavailable(f"the log is away: {error or type(error).__name__}") from error
        if self._stopped:
            await close_client(client)
            return
        if client.cluster.partitions_for_topic(self._topic) is None:
            # To join would ask for its metadata, which makes it on many brokers, with their defaults.
            await close_client(client)
            await asyncio.sleep(RETRY_SECONDS)
            raise LogUnavailable(f"there is no topic {self._topic}")
        state = SubscriptionState()
        self._client = client
        self._fetcher = Fetcher(client, self._topic, self._request_timeout)
        self._coordinator = Coordinator(
            client,
            state,
            group_id=self._group,
            group_instance_id=self._name or None,
            on_fenced=self._on_replaced,
            session_timeout_ms=self._session_ms,
            heartbeat_interval_ms=max(100, min(HEARTBEAT_MS, self._session_ms // 4)),
            rebalance_timeout_ms=self._session_ms,
            retry_backoff_ms=100,
            enable_auto_commit=False,
            assignors=(RoundRobinPartitionAssignor,),
            max_poll_interval_ms=NEVER_MS,  # our polls are not aiokafka's: liveness is the session's matter
        )
        state.subscribe(topics={self._topic}, listener=_Listener(self))

    def on_assigned(self, partitions: set[int]) -> None:
        """From the coordinator, once a rebalance is over."""
        if self._coordinator is None:
            return
        before, now = self._membership, (self._coordinator.member_id, self._coordinator.generation)
        kept = frozenset(partitions) if now == (before[0], before[1] + 1) else frozenset[int]()
        self._lose(self._assigned - kept)
        new = partitions - self._assigned
        self._assigned = frozenset(partitions)
        self._membership = now
        self._joined, self._replaced = True, False
        self._changed.set()
        for partition in sorted(new):
            self._tell_assigned(partition)

    def on_revoked(self) -> None:
        """From the coordinator, before each rebalance; all is lost only if the group has expelled us."""
        if self._coordinator is None or not self._coordinator.member_id:
            self._lose(self._assigned)

    def _on_replaced(self) -> None:
        """From the coordinator, each time it hears that our place is another's."""
        if not self._replaced:
            log.critical(
                "another process has joined under our name: it has our partitions; each needs a RAMAL_NAME of its own",
                extra={"group": self._group, "instance": self._name},
            )
        self._joined, self._replaced = False, True
        self._lose(self._assigned)
        self._changed.set()

    def _lose(self, partitions: frozenset[int]) -> None:
        self._assigned -= partitions
        for partition in sorted(partitions):
            self.pause(partition)
            self._tell_revoked(partition)

    async def _wait_for_change(self, timeout: float) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()

    async def _settle_positions(self, fetcher: Fetcher) -> None:
        """Finds where each begun partition goes on; one beyond the end is an alarm and stays stopped."""
        for partition, wanted in list(self._to_settle.items()):
            try:
                async with asyncio.timeout(POSITION_DEADLINE):
                    bounds = await self._bounds(partition)
                    offset = await self._committed(partition) if wanted is None else wanted
            except (TimeoutError, errors.KafkaError) as error:
                raise LogUnavailable("the log does not say where a partition begins") from error
            if self._to_settle.get(partition, -1) != wanted or partition not in self._assigned:
                continue  # begun anew or lost while we asked
            del self._to_settle[partition]
            if offset is None or offset < bounds.begin:
                offset = bounds.begin
            if offset > bounds.end:
                raise OutOfRange(partition, offset, bounds.end)
            fetcher.begin(partition, offset)

    async def _committed(self, partition: int) -> int | None:
        if self._coordinator is None:
            return None
        there = TopicPartition(self._topic, partition)
        found = (await self._coordinator.fetch_committed_offsets([there])).get(there)
        return None if found is None else int(found.offset)


async def _abandon(coordinator: Coordinator | None) -> None:
    """Ends the tasks of a coordinator whose log hangs: it would wait for ever."""
    tasks = {
        task
        for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task")
        if (task := getattr(coordinator, name, None)) is not None
    }
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=ABRUPT_SECONDS)
