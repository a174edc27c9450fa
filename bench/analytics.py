"""What statistics cost: CPU of analytics (Faust) and of cdr for the same call events, at a fixed rate, over real Kafka.

.venv/bin/python bench/analytics.py --rate 500 --seconds 30
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from ramal.backends import start_kafka, start_mysql
from ramal.processes import Child, free_port, spawn
from runtime.config import Kafka, MySQL, Secret
from runtime.database.mysql import MySQLDatabase
from runtime.log.kafka.log import KafkaLog
from tests.kit.call_stories import append, talk

PARTITIONS = 4
SETTLE = 10.0
EVENTS = len(talk().events)
"""Of a call."""


def cpu(child: Child) -> float:
    """CPU seconds of a process, its threads included. `setpriv` becomes the command, so the pid is its own."""
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(child: Child) -> int:
    """Resident megabytes."""
    return int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


async def ready(port: int) -> None:
    for _ in range(600):
        try:
            get(port, "/readyz")
        except OSError:
            await asyncio.sleep(0.2)
        else:
            return
    raise TimeoutError(f"port {port} is not ready")


async def told(port: int, events: int) -> None:
    """Returns once all calls are in the figures."""
    for _ in range(600):
        calls = json.loads(get(port, "/statistics"))["calls"]
        if sum(each["attempts"] for each in calls) * EVENTS >= events:
            return
        await asyncio.sleep(0.2)
    raise TimeoutError("the figures are not complete")


async def feed(log: KafkaLog, rate: int, seconds: float) -> int:
    """Appends whole calls of a few seconds, evenly; how many events that were."""
    count, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        while count < passed * rate:
            events = talk(
                now=int(time.time() * 1000) - 4000, ring=1000, last=2000, call_id=f"c{time.monotonic_ns()}"
            ).events
            await log.append([append(event, PARTITIONS) for event in events])
            count += len(events)
        await asyncio.sleep(0.005)
    return count


async def measure(directory: Path, rate: int, seconds: float) -> None:
    kafka, mysql = start_kafka(directory / "kafka"), start_mysql(directory / "mysql")
    children: dict[str, Child] = {}
    try:
        log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), "ramal.", PARTITIONS, "bench", "")
        await log.start()
        await log.create_topics(PARTITIONS)
        tables = MySQLDatabase(
            MySQL(
                host=mysql.host,
                port=mysql.port,
                user=mysql.user,
                password=Secret(mysql.password),
                database=mysql.database,
            )
        )
        await tables.start()
        await tables.migrate()
        environ = {
            **os.environ,
            "RAMAL_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "RAMAL_MYSQL_HOST": mysql.host,
            "RAMAL_MYSQL_PORT": str(mysql.port),
            "RAMAL_MYSQL_USER": mysql.user,
            "RAMAL_MYSQL_PASSWORD": mysql.password,
            "RAMAL_MYSQL_DATABASE": mysql.database,
        }
        ports = {name: free_port() for name in ("cdr", "analytics")}
        for name, port in ports.items():
            command = [sys.executable, "-m", "ramal", name]
            children[name] = spawn(name, command, directory / f"{name}.log", environ | {"RAMAL_HTTP_PORT": str(port)})
        for port in ports.values():
            await ready(port)
        warm = await feed(log, rate, 3)
        await told(ports["analytics"], warm)
        await asyncio.sleep(SETTLE)
        idle = {name: -cpu(child) for name, child in children.items()}
        await asyncio.sleep(SETTLE)
        idle = {name: (idle[name] + cpu(child)) / SETTLE for name, child in children.items()}
        before = {name: cpu(child) for name, child in children.items()}
        began = time.monotonic()
        events = await feed(log, rate, seconds)
        await told(ports["analytics"], warm + events)
        await asyncio.sleep(SETTLE)
        passed = time.monotonic() - began
        found = {"events": events, "rate": rate}
        for name, child in children.items():
            spent = cpu(child) - before[name]
            found[name] = {
                "cpu_seconds_per_1000": round(spent / events * 1000, 3),
                "without_idle": round((spent - idle[name] * passed) / events * 1000, 3),
                "idle_share_of_a_core": round(idle[name], 4),
                "memory_mb": memory(child),
            }
        page = get(ports["analytics"], "/metrics")
        for name in ("ramal_analytics_copies_total", "ramal_analytics_filled_total"):
            found[name] = next(line.split()[1] for line in page.splitlines() if line.startswith(name))
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        await tables.stop()
        await log.stop()
    finally:
        for child in children.values():
            child.stop()
        mysql.stop()
        kafka.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=500, help="call events a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(Path(directory), given.rate, given.seconds))


if __name__ == "__main__":
    main()
