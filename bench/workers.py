"""What a registration costs an edge of one worker, and one of several that have as much to do each: CPU per 1,000.

    .venv/bin/python bench/workers.py --workers 1 2 --rate 300 --seconds 15 --rounds 3 [--together]

Starts a Kafka, a MariaDB and the services behind the edge once, and by turns an edge, whose phones (a socket each)
refresh at a fixed rate for each worker; with `--together`, at one rate however many there are. Prints for each turn the
CPU of all processes of the edge, and how much each worker took of it.
"""

import argparse
import asyncio
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from authsvc.users.table import add_user
from ramal.backends import start_kafka, start_mysql
from ramal.processes import Child, free_port, spawn, wait_ready
from ramal.supervisor import _not_ready
from ramal.system import distributed
from ramal.warmup import Phone
from runtime.config import Sources

DOMAIN = "example.test"
PHONES = 64
RAMAL = [sys.executable, "-m", "ramal"]


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # its output


def cpu(pid: int) -> float:
    """CPU-seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def started(name: str, words: list[str], environ: Mapping[str, str], directory: Path) -> tuple[Child, str]:
    http = f"127.0.0.1:{free_port()}"
    settings = {**os.environ, **environ, "RAMAL_NAME": name, "RAMAL_HTTP_PORT": http.rpartition(":")[2]}
    child = spawn(name, [*RAMAL, *words], directory / f"{name}.log", settings)
    wait_ready(child, lambda: not _not_ready(http), 60)
    return child, http


async def refreshed(port: int, users: Mapping[str, str], rate: float, seconds: float) -> int:
    """Refreshes at this rate for so long; how many it were."""
    phones = [Phone(("127.0.0.1", port), DOMAIN, name, password) for name, password in users.items()]
    every = len(phones) / rate
    done = 0
    begin = time.monotonic() + 0.1

    async def repeat(phone: Phone, first: float) -> None:
        nonlocal done
        at = begin + first
        while at < begin + seconds:
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            await phone.register(phone.contact, 300)
            done += 1
            at += every

    async with asyncio.TaskGroup() as tasks:
        for number, phone in enumerate(phones):
            tasks.create_task(repeat(phone, every * number / len(phones)))
    for phone in phones:
        phone.close()
    return done


def turn(
    workers: int, environ: Mapping[str, str], users: Mapping[str, str], given: argparse.Namespace, where: Path
) -> float:
    """One edge, warmed and measured; CPU-seconds per 1,000."""
    port = free_port()
    at = {"RAMAL_EDGE_UDP": f"127.0.0.1:{port}", "RAMAL_EDGE_TCP": "", "RAMAL_EDGE_KEEPALIVE_SECONDS": "0"}
    rate = given.rate if given.together else given.rate * workers
    edge, http = started("edge", ["edge", "--workers", str(workers)], {**environ, **at}, where)
    try:
        asyncio.run(refreshed(port, users, rate, 4.0))
        pids = family(edge.pid)
        before = {pid: cpu(pid) for pid in pids}
        done = asyncio.run(refreshed(port, users, rate, given.seconds))
        used = [cpu(pid) - before[pid] for pid in pids]
        with urllib.request.urlopen(f"http://{http}/metrics", timeout=5) as page:
            text = page.read().decode()
        answers = [float(value) for value in re.findall(r'ramal_edge_responses_total\{.*status="200"\} (\S+)', text)]
    finally:
        edge.stop()
    each = sum(used) / done * 1000
    shares = ", ".join(f"{seconds:.2f}" for seconds in used)
    say(
        f"{workers} workers, {rate:.0f}/s: {done} refreshes, edge CPU {each:.3f} s/1000"
        f" (processes {shares} s; 200s {answers})"
    )
    return each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rate", type=float, default=300.0, help="refreshes a second at each worker")
    parser.add_argument("--together", action="store_true", help="the rate is that of all workers together")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        kafka, mysql = start_kafka(where / "kafka"), start_mysql(where / "mysql")
        environ = {
            "RAMAL_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "RAMAL_MYSQL_HOST": mysql.host,
            "RAMAL_MYSQL_PORT": str(mysql.port),
            "RAMAL_MYSQL_USER": mysql.user,
            "RAMAL_MYSQL_PASSWORD": mysql.password,
            "RAMAL_MYSQL_DATABASE": mysql.database,
            "RAMAL_DOMAIN": DOMAIN,
            "RAMAL_KEYS": f"k1:{secrets.token_hex(32)}",
        }
        users = {f"phone{number:02}": secrets.token_hex(8) for number in range(PHONES)}
        try:
            for command in ("topics", "migrate"):
                subprocess.run([*RAMAL, command], env={**os.environ, **environ}, check=True)  # noqa: S603  # ours
            system = distributed(Sources({**environ}, {}))

            async def known() -> None:
                async with system.tables() as tables:
                    for name, password in users.items():
                        await add_user(tables, name, DOMAIN, password)

            asyncio.run(known())
            services, _ = started("services", ["run", "authsvc", "registrar", "locator"], environ, where)
            found: dict[int, list[float]] = {count: [] for count in given.workers}
            for _ in range(given.rounds):
                for count in given.workers:
                    found[count].append(turn(count, environ, users, given, where))
            for count, costs in found.items():
                say(f"{count} workers: median {median(costs):.3f} s of the edge's CPU per 1,000 refreshes")
            services.stop()
        finally:
            kafka.stop()
            mysql.stop()


if __name__ == "__main__":
    main()
