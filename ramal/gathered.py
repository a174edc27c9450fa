"""The health pages of several processes as those of one: ready when all are, and every metric says whose it is."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

from edge.core.flow import host_port
from runtime.http import HttpServer, in_words

TIMEOUT = aiohttp.ClientTimeout(total=2.0)
_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (.*)$")

Pages = Callable[[], Mapping[str, tuple[str, int] | None]]
"""By name, where each process serves its pages; None for one that does not run."""


class GatheredPages(HttpServer):
    """Serves `/healthz`, `/readyz`, `/status`, `/metrics` and `/location` of all."""

    def __init__(self, host: str, port: int, pages: Pages, *, draining: Callable[[], bool]) -> None:
        super().__init__(host, port, list, [("GET", "/location/{aor:.+}", self._location)], draining=draining)
        self._pages = pages
        self._own = CollectorRegistry()
        """Of this process nothing counts but what it costs."""
        ProcessCollector(registry=self._own)

    async def _readyz(self, _: web.Request) -> web.Response:
        answers = await self._all("/readyz")
        reasons = [f"{name}: {why}" for name, text in answers.items() for why in _reasons(text)]
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def _status_page(self, request: web.Request) -> web.Response:
        said = together(await self._all("/status"), draining=self._draining())
        if "text/plain" in request.headers.get("Accept", ""):
            return web.Response(text=in_words(said))
        return web.json_response(said)

    async def _metrics(self, _: web.Request) -> web.Response:
        answers = await self._all("/metrics")
        texts = {name: text for name, text in answers.items() if text is not None}
        whole = merged(generate_latest(self._own).decode(), texts)
        return web.Response(body=whole.encode(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _location(self, request: web.Request) -> web.Response:
        """From whichever answers: all look into the same tables."""
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            for place in filter(None, self._pages().values()):
                try:
                    async with session.get(_url(place, request.rel_url.raw_path_qs)) as answer:
                        body = await answer.read()
                        return web.Response(body=body, status=answer.status, content_type=answer.content_type)
                except (OSError, aiohttp.ClientError, TimeoutError):
                    continue
        return web.json_response({"error": "no worker answers"}, status=503)

    async def _all(self, path: str) -> dict[str, str | None]:
        """What each says, by its name; None for one that does not answer."""
        pages = self._pages()
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            answers = await asyncio.gather(*(_text(session, place, path) for place in pages.values()))
        return dict(zip(pages, answers, strict=True))


async def _text(session: aiohttp.ClientSession, place: tuple[str, int] | None, path: str) -> str | None:
    if place is None:
        return None
    try:
        async with session.get(_url(place, path)) as answer:
            return await answer.text()
    except (OSError, aiohttp.ClientError, TimeoutError):
        return None


async def answers(place: tuple[str, int]) -> bool:
    """Whether a process that serves its pages there says in time that it is alive."""
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        return await _text(session, place, "/healthz") is not None


def _url(place: tuple[str, int], path: str) -> str:
    return f"http://{host_port(*place)}{path}"


def _reasons(text: str | None) -> list[str]:
    if text is None:
        return ["does not answer"]
    reasons: list[str] = json.loads(text)["reasons"]
    return reasons


def together(answers: Mapping[str, str | None], *, draining: bool) -> dict[str, Any]:
    """`/status` of all as one (see `runtime.http.described`): each process is what a service is there."""
    each = {name: json.loads(text) for name, text in answers.items() if text is not None}
    reasons = [f"{name}: {why}" for name, text in answers.items() for why in _reasons(text)]
    return {
        "ready": len(each) == len(answers) and all(said["ready"] for said in each.values()),
        "draining": draining,
        "reasons": reasons,
        "services": {
            name: {need: why for needs in said["services"].values() for need, why in needs.items()}
            for name, said in each.items()
        },
    }


def merged(own: str, pages: Mapping[str, str]) -> str:
    """Pages of metrics as one: the samples of each named page bear a label `worker`, those of our own none.

    All samples of one metric stand together, as the format wants it.
    """
    families: dict[str, tuple[list[str], list[str]]] = {}
    for worker, text in [("", own), *pages.items()]:
        head: list[str] = []
        samples: list[str] = []
        for line in text.splitlines():
            if line.startswith("# HELP "):
                head, samples = families.setdefault(line.split(" ", 3)[2], ([], []))
                if not head:
                    head.append(line)
            elif line.startswith("# TYPE "):
                if len(head) == 1:
                    head.append(line)
            elif found := _SAMPLE.match(line):
                name, labels, value = found.groups()
                names = ",".join(filter(None, (f'worker="{worker}"' if worker else "", labels)))
                samples.append(f"{name}{{{names}}} {value}" if names else line)
    return "".join(f"{line}\n" for head, samples in families.values() for line in [*head, *samples])
