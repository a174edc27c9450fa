"""Three Kafka brokers on loopback, and what can be done to them: leaders moved, one killed, restarted or hung."""

import asyncio
import base64
import contextlib
import os
import secrets
import signal
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from ramal import backends
from ramal.processes import Child, find, free_port, spawn
from tests.chaos.rig import until

HOST = "127.0.0.1"
NODES = (1, 2, 3)
FENCED_MS = 3000
"""A broker that the controllers have not heard of for so long loses what it leads (Kafka's default is 9 s)."""
_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={directory}/data
auto.create.topics.enable=false
auto.leader.rebalance.enable=false
broker.session.timeout.ms={fenced}
broker.heartbeat.interval.ms=500
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=6
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=6
group.initial.rebalance.delay.ms=0
num.network.threads=1
num.io.threads=2
log.cleaner.dedupe.buffer.size=16777216
"""
_ELECT_LEADERS, _ALTER_ASSIGNMENTS, _DESCRIBE_QUORUM = 43, 45, 55


class Led(dict[tuple[str, int], tuple[int, tuple[int, ...], frozenset[int]]]):
    """Leader, replicas (the preferred one first) and in-sync replicas of each partition, by topic and number."""


class Broker:
    """One of the three, which are controllers, too."""

    def __init__(self, directory: Path, node: int, ports: dict[int, int], controllers: dict[int, int]) -> None:
        self.node, self.port = node, ports[node]
        self._directory = directory / f"kafka-{node}"
        self._directory.mkdir(parents=True)
        self._properties = self._directory / "server.properties"
        self._properties.write_text(
            _PROPERTIES.format(
                node=node,
                host=HOST,
                port=self.port,
                controller=controllers[node],
                voters=",".join(f"{other}@{HOST}:{port}" for other, port in controllers.items()),
                directory=self._directory,
                fenced=FENCED_MS,
            )
        )
        (self._directory / "log4j2.properties").write_text(backends._LOG4J)
        logging = f"-Dlog4j2.configurationFile={self._directory}/log4j2.properties"
        self._java = [find("java", "default-jre-headless"), logging, "-cp", f"{backends.kafka_jars()}/*"]
        self.child: Child | None = None
        self.asleep = False

    def format(self, cluster: str) -> None:
        """Makes its directory part of a cluster."""
        quick = ["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format"]
        subprocess.run(
            [*self._java, *quick, "-t", cluster, "-c", str(self._properties)], check=True, stdout=subprocess.DEVNULL
        )

    def start(self) -> None:
        """Starts it; it need not answer yet."""
        heap = ["-Xms128m", "-Xmx320m", "-XX:+UseSerialGC", "kafka.Kafka", str(self._properties)]
        self.child = spawn(
            f"kafka-{self.node}", [*self._java, *heap], self._directory / "kafka.log", cwd=self._directory
        )

    def answers(self) -> bool:
        """Whether it serves requests."""
        return backends._kafka_answers(self.port)

    def signal(self, number: signal.Signals) -> None:
        assert self.child is not None
        os.kill(self.child.pid, number)

    def kill(self) -> None:
        """kill -9; returns when it is gone."""
        assert self.child is not None
        self.child.kill()

    async def end(self, seconds: float = 30) -> None:
        """SIGTERM: it hands over what it leads, and ends."""
        assert self.child is not None
        child = self.child
        child.terminate()
        await until(f"broker {self.node} ends", lambda: not child.alive(), seconds)

    async def back(self, seconds: float = 60) -> None:
        """Starts it again; returns when it answers."""
        self.start()
        await self.ready(seconds)

    async def ready(self, seconds: float) -> None:
        """Waits until it answers; on a thread, so that nobody's load waits for it."""
        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(self.answers):
            assert time.monotonic() < deadline, f"broker {self.node} does not answer within {seconds} s"
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def hung(self) -> AsyncIterator[None]:
        """Stopped inside the block; its connections stay."""
        self.signal(signal.SIGSTOP)
        self.asleep = True
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)
            self.asleep = False


class Brokers:
    """The cluster."""

    def __init__(self, directory: Path) -> None:
        ports, controllers = ({node: free_port() for node in NODES} for _ in range(2))
        cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        self.all = {node: Broker(directory, node, ports, controllers) for node in NODES}
        self.bootstrap = ",".join(f"{HOST}:{port}" for port in ports.values())
        for broker in self.all.values():
            broker.format(cluster)

    async def start(self, seconds: float = 90) -> None:
        """Starts all; returns when they answer."""
        for broker in self.all.values():
            broker.start()
        for broker in self.all.values():
            await broker.ready(seconds)

    def stop(self) -> None:
        """Ends all of them, hung ones too."""
        for broker in self.all.values():
            if broker.child is not None:
                broker.child.terminate()
        for broker in self.all.values():
            if broker.child is not None:
                broker.child.stop(5)

    async def led(self, prefix: str) -> Led:
        """Who leads the partitions of the topics that begin so."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=5000)
        await admin.start()
        try:
            return Led(
                {
                    (topic["topic"], p["partition"]): (p["leader"], tuple(p["replicas"]), frozenset(p["isr"]))
                    for topic in await admin.describe_topics()
                    if topic["topic"].startswith(prefix)
                    for p in topic["partitions"]
                }
            )
        finally:
            await admin.close()

    async def in_sync(self, prefix: str, seconds: float = 60) -> Led:
        """Waits until all three have all of these topics."""
        deadline = time.monotonic() + seconds
        while True:
            found = await self.led(prefix)
            if found and all(len(isr) == len(NODES) for _, _, isr in found.values()):
                return found
            assert time.monotonic() < deadline, f"not all replicas came into sync: {found}"
            await asyncio.sleep(0.2)

    async def elect(self, prefix: str) -> int:
        """Gives leadership back to each partition's preferred replica; how many moved. Nothing dies."""
        moving: dict[str, list[int]] = {}
        for (topic, partition), (leader, replicas, _) in (await self.in_sync(prefix)).items():
            if leader != replicas[0]:
                moving.setdefault(topic, []).append(partition)
        for topic, partitions in moving.items():
            await self.elect_of(topic, partitions)
        return sum(map(len, moving.values()))

    async def elect_of(self, topic: str, partitions: Sequence[int]) -> None:
        """The same for some partitions, without waiting for anybody to be in sync."""
        body = struct.pack(">bi", 0, 1) + _string(topic) + struct.pack(">i", len(partitions))
        body += b"".join(struct.pack(">i", partition) for partition in partitions) + struct.pack(">i", 5000)
        await self._ask(_ELECT_LEADERS, 1, body)

    async def prefer_others(self, prefix: str) -> None:
        """Makes another replica than its leader the preferred one of each partition; moves nothing yet."""
        for (topic, partition), (leader, replicas, _) in (await self.in_sync(prefix)).items():
            others = [node for node in replicas if node != leader]
            turned = partition % len(others)
            await self.prefer(topic, partition, [others[turned], leader, *others[:turned], *others[turned + 1 :]])

    async def prefer(self, topic: str, partition: int, replicas: Sequence[int]) -> None:
        """Gives a partition's replicas, which stay the same, another order."""
        name = topic.encode()
        body = struct.pack(">i", 10_000) + bytes([2, len(name) + 1]) + name + bytes([2]) + struct.pack(">i", partition)
        body += bytes([len(replicas) + 1]) + b"".join(struct.pack(">i", node) for node in replicas) + b"\0\0\0"
        await self._ask(_ALTER_ASSIGNMENTS, 0, body, flexible=True)

    async def controller(self) -> int:
        """The active controller."""
        name = b"__cluster_metadata"
        body = bytes([2, len(name) + 1]) + name + bytes([2]) + struct.pack(">i", 0) + b"\0\0\0"
        answer = await self._ask(_DESCRIBE_QUORUM, 0, body, flexible=True)
        # Tags, error, topics, the name, partitions; then the partition, its error, and the leader.
        _, _, leader = struct.unpack_from(">ihi", answer, 1 + 2 + 1 + 1 + len(name) + 1)
        return int(leader)

    async def _ask(self, api: int, version: int, body: bytes, *, flexible: bool = False) -> bytes:
        """The answer of any broker that answers to a request that no client here has."""
        awake = (broker for broker in self.all.values() if not broker.asleep)
        broker = next(broker for broker in awake if broker.answers())
        head = struct.pack(">hhih", api, version, 7, 4) + b"test" + (b"\0" if flexible else b"")
        reader, writer = await asyncio.open_connection(HOST, broker.port)
        try:
            async with asyncio.timeout(10):
                writer.write(struct.pack(">i", len(head) + len(body)) + head + body)
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                return (await reader.readexactly(size))[4:]
        finally:
            writer.close()


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()
