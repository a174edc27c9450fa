"""Writes to Kafka: one ProduceRequest at a time to each broker, carrying all that gathered meanwhile.

aiokafka's producer is made for streams of single records: a future, a lock and a hand-over
between tasks for each. Our services append whole batches and wait once: one future and one
timer for each append, over connections of our own (docs/architecture.md, section "Kafka").

Writes are idempotent (`kafka_lane`): what has no certain outcome is sent again, until its callers give up, and stands
once. A partition that has to wait for that, or for a leader, holds up no other.
"""

import asyncio
import functools
from collections.abc import Sequence

from aiokafka import errors
from aiokafka.structs import TopicPartition

from events.topics import DAY, TOPICS, VIEW
from runtime.errors import LogRefused, LogUnavailable, PartitionAway
from runtime.log.kafka.codes import PRODUCE, Then, Written, meaning
from runtime.log.kafka.lane import Key, Lane, Part, Producer, Whole, split
from runtime.log.kafka.link import Answered, Links
from runtime.log.kafka.session import Client
from runtime.log.kafka.wire import (
    Malformed,
    Produced,
    Request,
    ask_producer_id,
    produce,
    produce_throttle,
    produced,
    producer_id,
)
from runtime.log.port import Append, Position

WAITING_BYTES = 32 * 1024 * 1024
"""All that may wait for acknowledgement; beyond it an append is refused at once with LogUnavailable."""
RETRY_SECONDS = 0.05
TRY_SECONDS, TRY_AGAIN_SECONDS = 0.5, 1.0
"""What an append waits for a partition that has taken nothing for a whole time-out, and how often one waits at all."""
BROKER_SHARE = 0.75
"""Of our time-out, how long a leader waits for its followers: so it tells us that they are late, and which."""
REQUEST_TIMED_OUT = 7
KEPT_LONG = frozenset(topic.name for topic in (*TOPICS, *VIEW) if topic.retention_ms > DAY)
"""Topics whose disk is worth what compressing costs; others are gone within a day."""

Way = tuple[int, bool]
"""A broker, and whether it is the way for partitions that time out: a request is answered when all in it are."""


class Appender:
    """Appends batches. `client`, a started one, knows the topics' metadata."""

    def __init__(self, client: Client, prefix: str, timeout: float) -> None:
        self._client, self._prefix, self._timeout = client, prefix, timeout
        self._links = Links(client, timeout)
        self._slow_links = Links(client, timeout)
        self._lanes: dict[Key, Lane] = {}
        self._ready: dict[Way, list[Lane]] = {}
        """What waits for its turn."""
        self._busy: set[Way] = set()
        """Where an answer is owed to us, or something is sent at the end of this turn of the loop."""
        self._away: dict[Key, float] = {}
        """Partitions that have taken nothing for a whole time-out, and when the next append may try."""
        self._producer: Producer | None = None
        self._waiting_bytes = 0
        self._stopped = False

    async def append(self, records: Sequence[Append]) -> list[Position]:
        """See `Log.append`."""
        if not records:
            return []
        loop = asyncio.get_running_loop()
        whole = Whole(len(records), loop.create_future())
        parts = split(records, whole)
        if self._waiting_bytes + whole.size > WAITING_BYTES:
            raise LogUnavailable("too much already waits for the log")
        trying = bool(self._away) and self._tries(parts, loop.time())
        self._waiting_bytes += whole.size
        seconds = min(TRY_SECONDS, self._timeout) if trying else self._timeout
        until = loop.time() + seconds
        try:
            if any(part.key not in self._lanes for part in parts):
                await self._open_lanes(parts, until)
            for part in parts:
                lane = self._lanes[part.key]
                lane.waiting.append(part)
                if self._links.throttling:
                    whole.why = self._held_back(lane) or whole.why
                if not lane.busy:
                    self._enqueue(lane)
            timer = loop.call_at(until, whole.give_up, seconds)
            try:
                await whole.outcome
            except LogUnavailable as error:
                if trying:
                    raise PartitionAway(str(error)) from error
                if loop.time() >= until:
                    self._away.update((part.key, until) for part in parts if not part.settled)
                raise
            finally:
                timer.cancel()
        finally:
            self._waiting_bytes -= whole.size
        return whole.positions  # type: ignore[return-value]  # all are set when the outcome is

    def _tries(self, parts: list[Part], now: float) -> bool:
        """Whether one of these is for a partition that is away, and may try; raises PartitionAway where it may not."""
        there = [part.key for part in parts if part.key in self._away]
        for key in there:
            if now < self._away[key]:
                raise PartitionAway(f"{key[0]} {key[1]} has taken nothing for {self._timeout} s")
        self._away.update((key, now + TRY_AGAIN_SECONDS) for key in there)
        return bool(there)

    def _is_back(self, lane: Lane) -> None:
        if self._away:
            self._away.pop((lane.there.topic.removeprefix(self._prefix), lane.there.partition), None)

    async def stop(self) -> None:
        """Drops what waits and closes our connections; the client is closed by its owner."""
        self._stopped = True
        self._ready.clear()
        for lane in self._lanes.values():
            lane.drop(LogUnavailable("the log is being closed"))
        await asyncio.gather(self._links.close(), self._slow_links.close())

    # --- partitions -----------------------------------------------------------

    async def _open_lanes(self, parts: list[Part], until: float) -> None:
        """Makes sure that all partitions are there; raises LogRefused or LogUnavailable."""
        try:
            async with asyncio.timeout_at(until):
                lanes = {part.key: self._lanes.get(part.key) or await self._lane(part.key) for part in parts}
        except TimeoutError as error:
            raise LogUnavailable(f"the log does not say what it has within {self._timeout} s") from error
        if self._stopped:
            raise LogUnavailable("the log is being closed")
        for key, lane in lanes.items():
            self._lanes.setdefault(key, lane)

    async def _lane(self, key: Key) -> Lane:
        """Waits until its topic is known; raises LogRefused for a partition that the topic does not have."""
        there = TopicPartition(self._prefix + key[0], key[1])
        asked = False
        while True:
            partitions = self._client.cluster.partitions_for_topic(there.topic) or ()
            if there.partition in partitions:
                return Lane(there, dense=key[0] in KEPT_LONG)
            if partitions and asked:
                raise LogRefused(f"there is no partition {there.partition} of topic {key[0]}")
            # Metadata of all topics: to ask for one that is missing may make it, with the broker's defaults.
            self._client.force_metadata_update()
            asked = True
            await asyncio.sleep(RETRY_SECONDS)

    # --- sending --------------------------------------------------------------

    def _enqueue(self, lane: Lane) -> None:
        """Sends what a partition has to send in its leader's next turn."""
        node = self._links.leader(lane.there)
        if node is None:
            self._later(lane, "nobody leads it", stale=True)
            return
        lane.busy = True
        way = node, lane.slow
        self._ready.setdefault(way, []).append(lane)
        if way not in self._busy:
            self._busy.add(way)
            # At the end of this turn: whoever else appends in it goes along.
            asyncio.get_running_loop().call_soon(self._send, way)

    def _later(self, lane: Lane, why: str, *, stale: bool) -> None:
        """The same a moment later, if anybody still waits for it then."""
        if self._stopped:
            lane.busy = False
            return
        if stale:
            self._client.force_metadata_update()
        lane.note(f"{lane.there.topic} {lane.there.partition}: {why}")
        lane.busy = True
        lane.timer = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._again, lane)

    def _again(self, lane: Lane) -> None:
        lane.timer = None
        self._go_on(lane)

    def _go_on(self, lane: Lane) -> None:
        """What the partition has to send now, if there is anything."""
        lane.busy = False
        lane.let_go()
        if (lane.batch is not None or lane.waiting) and not self._stopped:
            self._enqueue(lane)

    def _send(self, way: Way) -> None:
        """One request to a broker that owes us no answer: all that waits for it; or who we are, if nobody told us."""
        lanes = self._ready.pop(way, None)
        if not lanes:
            self._busy.discard(way)
            return
        producer = self._producer
        if producer is None:
            self._ready[way] = lanes
            self._request(way, ask_producer_id(), functools.partial(self._told, way))
            return
        topics: dict[str, list[tuple[int, bytes]]] = {}
        sent: dict[tuple[str, int], Lane] = {}
        for lane in lanes:
            there = lane.there
            if lane.worn_out(producer):
                self._producer = None
                self._go_on(lane)
                continue
            if self._links.leader(there) != way[0]:  # since it began to wait
                self._go_on(lane)
                continue
            batch = lane.to_send(producer)
            if batch is None:
                lane.busy = False
                continue
            topics.setdefault(there.topic, []).append((there.partition, batch.octets))
            sent[there] = lane
        if sent:
            if self._links.throttling:
                for lane in sent.values():
                    if why := self._held_back(lane):
                        lane.note(why)
            request = produce(int(self._timeout * BROKER_SHARE * 1000), topics)
            self._request(way, request, functools.partial(self._answered, way, sent))
        else:
            self._send(way)

    def _request(self, way: Way, request: Request, answered: Answered) -> None:
        self._links_of(way).send(way[0], request, answered)

    def _held_back(self, lane: Lane) -> str:
        """That a quota holds back what is for a partition's leader; "" where none does."""
        node = self._links.leader(lane.there)
        seconds = 0.0 if node is None else self._links.throttled(node)
        return f"Kafka holds us back by a quota, for another {seconds:.1f} s" if seconds else ""

    def _links_of(self, way: Way) -> Links:
        return self._slow_links if way[1] else self._links

    def _told(self, way: Way, outcome: bytes | errors.KafkaError) -> None:
        """A broker said who we are, or why not."""
        try:
            code, id_, epoch = producer_id(_octets(outcome))
        except (errors.KafkaError, Malformed) as error:
            why = str(error)
        else:
            why = meaning(PRODUCE, code).name
            if code == 0 and self._producer is None:
                self._producer = Producer(id_, epoch)
        if self._producer is None:
            for lane in self._ready.pop(way, ()):
                self._later(lane, f"no producer id: {why}", stale=True)
        self._send(way)

    # --- outcomes -------------------------------------------------------------

    def _answered(self, way: Way, sent: dict[tuple[str, int], Lane], outcome: bytes | errors.KafkaError) -> None:
        """Settles what was sent to a broker, which then gets the next request."""
        parts: list[Produced] = []
        why = "the broker does not tell of it"
        try:
            octets = _octets(outcome)
            parts = produced(octets)
            self._links_of(way).throttle(way[0], produce_throttle(octets))
        except (errors.KafkaError, Malformed) as error:
            why = str(error)
        try:
            for topic, partition, code, offset, timestamp in parts:
                lane = sent.pop((topic, partition), None)
                if lane is None:
                    continue
                if code == 0:
                    self._is_back(lane)
                    lane.written(offset, timestamp)
                    lane.busy = lane.slow = False
                    if lane.waiting:
                        self._enqueue(lane)
                else:
                    self._refused(lane, code, offset, timestamp)
            for lane in sent.values():
                self._unsettled(lane, why, stale=True)
        finally:
            self._send(way)

    def _refused(self, lane: Lane, code: int, offset: int, timestamp: int) -> None:
        """Does as the table says; what was settled makes way for what waits behind it."""
        name, then, stale, written = meaning(PRODUCE, code)
        lane.slow = code == REQUEST_TIMED_OUT
        if then is Then.AGAIN:
            self._unsettled(lane, name, stale=stale, doubt=written is not Written.NO)
            return
        self._is_back(lane)
        if then is Then.DONE:
            lane.written(offset, timestamp)
        elif then is Then.REFUSE:
            lane.refused(name)
        else:
            if then is Then.NEW_PRODUCER and self._producer is not None and self._producer.id == lane.producer:
                self._producer = None
            lane.out_of_sequence(name)
            self._later(lane, name, stale=stale)
            return
        self._go_on(lane)

    def _unsettled(self, lane: Lane, why: str, *, stale: bool, doubt: bool = True) -> None:
        if lane.batch is not None and doubt:
            lane.batch.doubt = True
        self._later(lane, why, stale=stale)


def _octets(outcome: bytes | errors.KafkaError) -> bytes:
    """An answer; raises why there is none."""
    if isinstance(outcome, errors.KafkaError):
        raise outcome
    return outcome
