"""Connections of our own for Produce and Fetch: frames out, frames in, nothing else.

aiokafka's connection is made for any request from any task: for each it makes a future, a timeout and a task's
two turns, and asyncio's streams take three more to put one answer together. Of a service that handles one record
at a wake-up this was half of the CPU. Here a request is a frame and a function, which is called with the answer
from where its last octets are received. One clock looks after the deadlines of all requests of a connection.

aiokafka's client still knows the cluster: which broker leads a partition, and where a broker is.
"""

import asyncio
import functools
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import cast

from aiokafka import errors
from aiokafka.structs import TopicPartition
from prometheus_client import Counter

from runtime.log.kafka.session import Client, Session
from runtime.log.kafka.wire import Malformed, Request, frame, frame_size, numbered

IDLE_SECONDS = 480.0
"""A connection that was idle for longer is not used again: the broker closes it after ten minutes, and what is
sent to it just then has an outcome that nobody knows."""
LIFE = 0.8
"""The part of a session's life that is used: the broker ends a connection at the first request behind its end."""

SAID_SECONDS = 60.0
"""After a quota held us back for the last time, how long until it is said again."""

SPOKEN = {0: 3, 1: 4}
"""The versions of Produce and Fetch that we speak."""

THROTTLED = Counter("ramal_log_throttled_seconds", "Time that Kafka held us back by a quota.")

log = logging.getLogger("ramal.log")

Answered = Callable[[bytes | errors.KafkaError], None]
"""Called once: with an answer's octets, or with why there is none (the request may have been carried out)."""


class _Link(asyncio.Protocol):
    """One connection. Requests are answered in the order in which they were sent."""

    def __init__(self, client_id: bytes, timeout: float, lost: Callable[["_Link"], None]) -> None:
        self._client_id, self._timeout, self._lost = client_id, timeout, lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[int, float, Answered]] = deque()
        """Of each request: its number, until when it waits, who waits."""
        self._number = 0
        self._used = self._loop.time()
        self._until = math.inf
        """No request is sent later."""
        self._retired = False
        self._kept: object = None
        self._clock: asyncio.TimerHandle | None = None
        self._pieces: list[bytes] = []
        """Of a frame that is not whole yet."""
        self._have, self._need = 0, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def usable(self) -> bool:
        """Whether it is open and will not be closed by the broker, for being idle or too old."""
        now = self._loop.time()
        return self._transport is not None and now - self._used < IDLE_SECONDS and now < self._until

    def take(self, session: Session) -> None:
        """Begins on the connection of a session that has logged in."""
        self._until = self._loop.time() + LIFE * session.seconds
        self._kept = session.hand_over(self)

    def retire(self) -> None:
        """Closes it once all who wait are answered; nothing more is sent over it."""
        self._retired = True
        if not self._waiting:
            self.close(errors.KafkaConnectionError("the connection was idle"))

    def send(self, request: Request, answered: Answered) -> None:
        """Sends a request over a connection that is usable."""
        transport = self._transport
        if transport is None:
            answered(errors.KafkaConnectionError("the connection is closed"))
            return
        self._number = number = (self._number + 1) & 0x7FFFFFFF
        self._used = now = self._loop.time()
        self._waiting.append((number, now + self._timeout, answered))
        if self._clock is None:
            self._clock = self._loop.call_later(self._timeout, self._look)
        transport.write(frame(request, number, self._client_id))

    def close(self, error: errors.KafkaError) -> None:
        """Closes it at once; all who wait hear this error."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        self._pieces.clear()
        waiting, self._waiting = self._waiting, deque()
        self._kept = None
        self._lost(self)
        for _, _, answered in waiting:
            answered(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self.close(errors.KafkaConnectionError(f"the broker closed the connection: {exc or 'end of file'}"))

    def data_received(self, data: bytes) -> None:
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
        try:
            self._receive(data)
        except Malformed as error:
            self.close(errors.KafkaConnectionError(f"the broker sends what is no answer: {error}"))

    def _receive(self, data: bytes) -> None:
        """Hands all whole frames on and keeps the rest; raises Malformed."""
        at, end = 0, len(data)
        while end - at >= 4:
            size = frame_size(data, at)
            if end - at < size:
                break
            number, answer = numbered(data, at, size)
            at += size
            if not self._waiting or self._waiting[0][0] != number:
                raise Malformed(f"number {number} was not asked for")
            self._waiting.popleft()[2](answer)
            if self._retired and not self._waiting:
                self.close(errors.KafkaConnectionError("the connection was too old"))
            if self._transport is None:  # that, or whoever was answered has closed it
                return
        if at < end:
            self._pieces.append(data[at:])
            self._have = end - at
            self._need = frame_size(data, at) if self._have >= 4 else 4

    def _look(self) -> None:
        """Whether the oldest request waits too long; looks again when it will have."""
        self._clock = None
        if not self._waiting:
            return
        until = self._waiting[0][1]
        if until <= self._loop.time():
            self.close(errors.RequestTimedOutError("the broker did not answer in time"))
        else:
            self._clock = self._loop.call_at(until, self._look)


class Links:
    """A connection to each broker, made when it is first needed. `timeout` is that of one request, in seconds.

    Over one connection the broker carries out requests one after the other: a fetch that waits for records would
    hold up whatever else is sent there, so each reader and the writer have Links of their own.
    """

    def __init__(self, client: Client, timeout: float) -> None:
        self._client, self._timeout = client, timeout
        self._client_id = str(client._client_id).encode()  # noqa: SLF001  # the client has no call for this
        self._links: dict[int, _Link] = {}
        self._retired: set[_Link] = set()
        self._dialling: dict[int, asyncio.Task[None]] = {}
        self._to_send: dict[int, list[tuple[Request, Answered]]] = {}
        self._throttled: dict[int, float] = {}
        """By broker, until when it reads nothing of ours."""
        self._held: dict[int, asyncio.TimerHandle] = {}
        """By broker, the timer after which what is in `_to_send` goes."""

    def leader(self, partition: TopicPartition) -> int | None:
        """The broker that leads a partition, as far as we know."""
        node = self._client.cluster.leader_for_partition(partition)
        return int(node) if node is not None and node >= 0 else None

    def throttle(self, node: int, seconds: float) -> None:
        """The broker answered that a quota is exceeded: it reads nothing more of this connection for so long (KIP-219).

        What is sent to it meanwhile waits here: there it would seem not to be answered in time, and a new connection
        would go round the quota.
        """
        if seconds <= 0:
            return
        now = asyncio.get_running_loop().time()
        if now > self._throttled.get(node, 0.0) + SAID_SECONDS:
            log.warning("Kafka holds us back by a quota", extra={"broker": node, "seconds": seconds})
        self._throttled[node] = now + seconds
        THROTTLED.inc(seconds)

    @property
    def throttling(self) -> bool:
        """Whether any broker has held us back."""
        return bool(self._throttled)

    def throttled(self, node: int) -> float:
        """For how many seconds nothing is sent to a broker."""
        until = self._throttled.get(node)
        return 0.0 if until is None else max(0.0, until - asyncio.get_running_loop().time())

    def send(self, node: int, request: Request, answered: Answered) -> None:
        """Sends a request to a broker: now, once there is a connection, or once it reads again."""
        if self._throttled and (seconds := self.throttled(node)):
            self._to_send.setdefault(node, []).append((request, answered))
            if node not in self._held:
                self._held[node] = asyncio.get_running_loop().call_later(seconds, self._let_go, node)
            return
        link = self._links.get(node)
        if link is not None:
            if link.usable():
                link.send(request, answered)
                return
            del self._links[node]
            self._retired.add(link)
            link.retire()
        self._to_send.setdefault(node, []).append((request, answered))
        if node not in self._dialling:
            self._dialling[node] = asyncio.create_task(self._dial(node), name=f"dial broker {node}")

    def _let_go(self, node: int) -> None:
        """A broker reads again."""
        del self._held[node]
        if node not in self._dialling:
            for request, answered in self._to_send.pop(node, ()):
                self.send(node, request, answered)

    def hang_up(self, node: int) -> None:
        """Calls off what a broker has not answered; what is sent next goes over a new connection."""
        error = errors.KafkaConnectionError("it was called off")
        for _, answered in self._to_send.pop(node, ()):
            answered(error)
        if link := self._links.pop(node, None):
            link.close(error)

    async def close(self) -> None:
        """Closes all connections; who waits hears KafkaConnectionError."""
        tasks = list(self._dialling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for node, timer in self._held.items():
            timer.cancel()
            for _, answered in self._to_send.pop(node, ()):
                answered(errors.KafkaConnectionError("the log is being closed"))
        self._held.clear()
        links = [*self._links.values(), *self._retired]
        self._links.clear()
        for link in links:
            link.close(errors.KafkaConnectionError("the log is being closed"))

    async def _dial(self, node: int) -> None:
        """Connects, and sends what waits for it."""
        failure: errors.KafkaError = errors.KafkaConnectionError("the log is being closed")
        link: _Link | None = None
        try:
            async with asyncio.timeout(self._timeout):
                link = await self._connect(node)
        except TimeoutError:
            failure = errors.KafkaConnectionError(f"broker {node} does not answer")
        except OSError as error:
            failure = errors.KafkaConnectionError(f"broker {node} cannot be reached: {error}")
        except errors.KafkaError as error:
            failure = error
        finally:
            del self._dialling[node]
            for request, answered in self._to_send.pop(node, ()):
                if link is not None:
                    link.send(request, answered)
                else:
                    answered(failure)

    async def _connect(self, node: int) -> _Link:
        broker = self._client.cluster.broker_metadata(node)
        if broker is None:
            raise errors.StaleMetadata(f"there is no broker {node}")
        session = await self._client.session(broker.host, broker.port, self._timeout)
        for api, version in SPOKEN.items():
            least, most = session.versions(api)
            if not least <= version <= most:
                session.close()
                raise errors.IncompatibleBrokerVersion(
                    f"the broker speaks versions {least} to {most} of API {api}, not {version}"
                )
        link = _Link(self._client_id, self._timeout, functools.partial(self._forget, node))
        link.take(session)
        self._links[node] = link
        return link

    def _forget(self, node: int, link: _Link) -> None:
        """A connection broke: perhaps others lead now."""
        self._retired.discard(link)
        if self._links.get(node) is link:
            del self._links[node]
            self._client.force_metadata_update()
