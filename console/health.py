"""What all processes do now: their health pages looked at, and how far the tables are behind the log.

`ramal top` looks in the same way. A rate needs two looks; the console keeps the one before, for all who ask.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from cdr.tables import PROJECTION as CALLS_PROJECTION
from console.sampled import Look, gateways, minute, overall, parsed, process
from events.topics import CALLS, REGISTRATIONS
from locator.tables import LIVE
from runtime.config import without_userinfo
from runtime.database.port import Database
from runtime.errors import ConfigError, DatabaseRefused, LogRefused, Unavailable
from runtime.log.port import Log

log = logging.getLogger("ramal.console")

MINUTE = 60_000
TIMEOUT = aiohttp.ClientTimeout(total=2.0)
BYTES = 16 << 20
"""A longer page is none of ours."""
_NAME = re.compile(r"[^/:?#=@\[\]]+")
KEPT_SECONDS = 2.0
"""So old may what is shown be: many who ask are one look."""
PROJECTIONS = {LIVE.projection: REGISTRATIONS, CALLS_PROJECTION: CALLS}


def named(setting: str, url: str) -> tuple[str, str]:
    """Name and base of `http://127.0.0.1:8080`, `127.0.0.1:8080` or `edge-1=127.0.0.1:8080`. Raises ConfigError.

    The base may have a user and password; neither name nor error shows them.
    """
    name, equals, address = url.partition("=")
    if not equals or not _NAME.fullmatch(name):  # the "=" is the address's own
        name, address = "", url
    address = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(address)
        _ = parts.port
        good = parts.scheme in ("http", "https") and parts.hostname and "=" not in parts.hostname
        good = good and not parts.query and not parts.fragment
    except ValueError:
        good = False
    if not good:
        shown = f"{name}{equals if name else ''}{without_userinfo(address)}"
        raise ConfigError(f"{setting}: {shown!r} is not [NAME=]http://HOST:PORT")
    return name or without_userinfo(address).partition("://")[2], address.rstrip("/")


async def look(session: aiohttp.ClientSession, urls: Mapping[str, str]) -> dict[str, Look]:
    """All processes now."""
    looks = await asyncio.gather(*(_process(session, name, url) for name, url in urls.items()))
    return {each.name: each for each in looks}


async def statistics(session: aiohttp.ClientSession, urls: Mapping[str, str]) -> Any:
    """The newest statistics; None where nobody has them."""
    reckoning = [name for name in urls if name == "up" or name.startswith("analytics")] or list(urls)
    for name in reckoning:
        try:
            return json.loads(await _get(session, f"{urls[name]}/statistics", 200))
        except (OSError, ValueError, aiohttp.ClientError, TimeoutError):
            continue  # the next one may have them
    return None


async def _process(session: aiohttp.ClientSession, name: str, url: str) -> Look:
    at = time.monotonic()
    try:
        samples = parsed(await _get(session, f"{url}/metrics", 200))
        reasons = json.loads(await _get(session, f"{url}/status", 200))["reasons"]
    except (OSError, ValueError, KeyError, TypeError, aiohttp.ClientError, TimeoutError) as error:
        return Look(name, at, {}, [f"does not answer: {without_userinfo(str(error)) or type(error).__name__}"])
    return Look(name, at, samples, [str(reason) for reason in reasons])


async def _get(session: aiohttp.ClientSession, url: str, *statuses: int) -> str:
    async with session.get(url) as answer:
        if answer.status not in statuses:
            raise ValueError(f"HTTP status {answer.status}")
        body = b""
        async for chunk in answer.content.iter_chunked(1 << 16):
            body += chunk
            if len(body) > BYTES:
                raise ValueError("a page that is too long")
        return body.decode()


def contents(before: Mapping[str, Look], now: Mapping[str, Look], figures: Any, at_ms: int) -> dict[str, Any]:
    """What is shown: of processes that are seen for the first time, no rates."""
    pairs = [(before.get(name, each), each) for name, each in now.items()]
    begin = at_ms // MINUTE * MINUTE
    last = minute(figures, begin - MINUTE) if figures else None
    return {
        "at": at_ms,
        "processes": [process(*pair) for pair in pairs],
        "overall": overall(pairs),
        "last_minute": last,
        "this_minute": minute(figures, begin) if figures else None,
    }


class Health:
    """What the console shows of it."""

    def __init__(self, processes: Sequence[str], log: Log, tables: Database) -> None:
        self._urls = dict(named("RAMAL_CONSOLE_PROCESSES", url) for url in processes)
        self._log = log
        self._tables = tables
        self._before: Mapping[str, Look] = {}
        self._shown: dict[str, Any] = {}
        self._shown_at = float("-inf")
        self._turn = asyncio.Lock()

    async def now(self, here: str) -> dict[str, Any]:
        """All of it; `here`: the base URL of this process, for where no others are named.

        How the processes are is told also while the tables or the log are away: who asks then wants to know why.
        """
        async with self._turn:
            if time.monotonic() - self._shown_at >= KEPT_SECONDS:
                async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
                    looks = await look(session, self._urls or {"here": here})
                found = contents(self._before, looks, None, int(time.time() * 1000))
                found["gateways"] = gateways(looks.values())
                found |= await self._behind()
                self._before, self._shown, self._shown_at = looks, found, time.monotonic()
            return self._shown

    async def _behind(self) -> dict[str, Any]:
        try:
            return {"projections": await self._projections(), "away": ""}
        except (Unavailable, DatabaseRefused, LogRefused, KeyError) as error:  # KeyError: a topic that is not there
            log.warning("how far tables are behind cannot be told", extra={"cause": str(error)})
            return {"projections": [], "away": str(error)}

    async def _projections(self) -> list[dict[str, Any]]:
        """Of each projection, how many records its tables are behind its topic."""
        rows = await self._tables.query("SELECT projection, partition_no, next_offset FROM projection_offset")
        positions = {(str(name), int(number)): int(at) for name, number, at in rows}
        found = []
        for name, topic in PROJECTIONS.items():
            numbers = range(await self._log.partitions(topic))
            bounds = await asyncio.gather(*(self._log.bounds(topic, number) for number in numbers))
            lags = [max(0, each.end - max(positions.get((name, n), 0), each.begin)) for n, each in enumerate(bounds)]
            found.append({"name": name, "topic": topic, "lag": sum(lags), "partitions": len(lags)})
        return found
