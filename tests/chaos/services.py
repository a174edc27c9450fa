"""Processes of registrars and locators on a broker of their own, and commands for them, without edges."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from events.commands import Contact, RegisterContacts, Registration, ReplyTo
from events.topics import BINDINGS, REGISTRAR_COMMANDS, REGISTRATIONS
from events.wire import cloud_event, encode
from ramal.processes import Child, free_port, spawn
from registrar.truths import is_claim, is_watermark
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append, Record

SESSION, INTERVAL = 6, 1
"""Seconds of the group's session, and between snapshots."""
PROJECT = Path(__file__).resolve().parents[2]
THIS = (sys.executable, "-m", "ramal")
NEXT = (sys.executable, str(PROJECT / "tests" / "chaos" / "next_version.py"))
"""How this version is run, and the next one."""

_numbers = itertools.count(1)


class Services:
    """Processes of `ramal registrar` and `ramal locator` on one partition, and commands for them."""

    def __init__(
        self, log: KafkaLog, bootstrap: str, directory: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.log, self._bootstrap, self._directory = log, bootstrap, directory
        self._environ = environ or {}
        self._children: dict[str, Child] = {}
        self._http: dict[str, str] = {}

    def start(
        self, name: str, bootstrap: str = "", service: str = "registrar", program: Sequence[str] = THIS, **more: str
    ) -> Child:
        """Starts a process; `bootstrap`: another way to the broker."""
        port = free_port()
        environ = {
            **os.environ,
            "RAMAL_NAME": name,
            "RAMAL_PARTITIONS": "1",
            "RAMAL_HTTP_PORT": str(port),
            "RAMAL_KAFKA_BOOTSTRAP": bootstrap or self._bootstrap,
            "RAMAL_KAFKA_SESSION_TIMEOUT": str(SESSION),
            "RAMAL_REGISTRAR_SNAPSHOT_INTERVAL": str(INTERVAL),
            "PYTHONPATH": str(PROJECT),
            **self._environ,
            **more,
        }
        child = spawn(name, [*program, service], self._directory / f"{name}.log", environ)
        self._children[name] = child
        self._http[name] = f"http://127.0.0.1:{port}"
        return child

    def stop(self, name: str) -> None:
        """SIGTERM, and an orderly end."""
        self._children.pop(name).stop(15)

    def reasons(self, name: str) -> list[str]:
        """Why it is not ready; none when it is."""
        try:
            with urllib.request.urlopen(f"{self._http[name]}/readyz", timeout=2):
                return []
        except urllib.error.HTTPError as error:
            with error:
                said: list[str] = json.load(error)["reasons"]
                return said
        except OSError as error:
            return [f"it does not answer: {error}"]

    async def stopped(self, name: str, seconds: float = 30) -> str:
        """Waits until it says that its partition waits for a person; what else it says."""
        async with asyncio.timeout(seconds):
            while not (said := [r for r in self.reasons(name) if "is stopped" in r]):  # noqa: ASYNC110  # tells nobody
                await asyncio.sleep(0.1)
        assert "partition stopped; it needs a person" in (self._directory / f"{name}.log").read_text()
        assert any(re.search(r"^ramal_stopped_partitions\{.*\} 1\.0$", line) for line in self._metrics(name))
        return said[0]

    def _metrics(self, name: str) -> list[str]:
        with urllib.request.urlopen(f"{self._http[name]}/metrics", timeout=2) as metrics:
            text: str = metrics.read().decode()
            return text.splitlines()

    def kill_all(self) -> None:
        """kill -9 of all that runs."""
        for child in self._children.values():
            if child.alive():
                child.kill()
        self._children.clear()

    async def register(self, aor: str, *contacts: str, seconds: float = 40) -> list[str]:
        """The AOR's contacts, once a registrar has recorded that these are registered; none given: a query."""
        return [
            binding["contact"] for binding in (await self.state(aor, *contacts, seconds=seconds)).get("bindings", ())
        ]

    async def state(self, aor: str, *contacts: str, seconds: float = 40) -> dict[str, Any]:
        """The same, as the AOR's state stands in that record."""
        number = next(_numbers)
        command = RegisterContacts(
            f"id-{number}",
            ReplyTo("edge-1", "boot", int((time.time() + seconds) * 1000)),
            aor,
            aor,
            Registration(f"call-{number}", number, f"z9hG4bK{number}", tuple(Contact(c) for c in contacts)),
        )
        begin = (await self.log.bounds(REGISTRATIONS, 0)).end
        headers = cloud_event("ramal.RegisterContacts", "test", command.id)
        await self.log.append([Append(REGISTRAR_COMMANDS, 0, aor.encode(), encode(command), headers)])
        async with asyncio.timeout(seconds), contextlib.aclosing(self.log.read(REGISTRATIONS, 0, begin)) as reading:
            async for records in reading:
                for record in records:
                    if not is_claim(record.headers) and (value := json.loads(record.value or b""))["id"] == command.id:
                        state: dict[str, Any] = value["state"]
                        return state
        raise AssertionError("the log ended")

    async def snapshots(self) -> tuple[dict[bytes, list[str]], int]:
        """The contacts by AOR in the snapshots, and up to which truth they say that they are whole."""
        contacts: dict[bytes, list[str]] = {}
        through = -1
        for record in await self.records(BINDINGS):
            value = json.loads(record.value or b"{}")
            if is_watermark(record):
                through = value["through"]
            else:
                contacts[record.key or b""] = [binding["contact"] for binding in value.get("bindings", ())]
        return contacts, through

    async def written(self, through: int, seconds: float = 20) -> None:
        """Waits until snapshots are whole up to this offset."""
        async with asyncio.timeout(seconds):
            while (await self.snapshots())[1] < through:  # noqa: ASYNC110  # what is awaited happens elsewhere
                await asyncio.sleep(0.1)

    async def records(self, topic: str) -> list[Record]:
        """All of its one partition."""
        end = (await self.log.bounds(topic, 0)).end
        return [r async for some in self.log.read(topic, 0, 0, end, committed=True) for r in some]
