"""What `ramal trace` does with a collector that limits, refuses or is away; over HTTP, on a loopback address."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from ramal.cli_trace import _collector
from ramal.tracing import follow
from ramal.tracing.follow import PART, Collector
from ramal.tracing.spans import Span
from runtime.errors import ConfigError


class Site:
    """A collector that answers as it is told to, and what it took."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.url = ""
        self.limit = 1 << 30
        self.status = 200
        self.took: list[str] = []
        self.told: list[str] = []
        self.authorization: str | None = None

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.authorization = request.headers.get("Authorization")
        if len(body) > self.limit:
            return web.Response(status=413)
        if self.status == 200:
            for resource in json.loads(body)["resourceSpans"]:
                self.took += [span["spanId"] for span in resource["scopeSpans"][0]["spans"]]
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})

    def collector(self) -> Collector:
        return Collector(self.session, self.url, self.told.append)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with aiohttp.ClientSession() as session:
        found = Site(session)
        application = web.Application(client_max_size=1 << 30)
        application.router.add_post("/v1/traces", found.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        listener = web.TCPSite(runner, "127.0.0.1", 0)
        await listener.start()
        host, port = runner.addresses[0]
        found.url = f"http://{host}:{port}"
        yield found
        await runner.cleanup()


def some(count: int, begin: int = 0) -> list[Span]:
    return [Span("a" * 32, f"{begin + n:016x}", "", "edge", "INVITE", 1, 2) for n in range(count)]


async def test_what_has_waited_goes_in_parts_that_a_limit_of_bodies_lets_through(site: Site) -> None:
    collector, spans = site.collector(), some(3 * PART + 7)
    site.status = 503
    await collector.take(spans)
    assert site.told == [f"the collector at {site.url} answers 503; up to {follow.KEPT} spans are kept"]
    site.status, site.limit = 200, 1 << 18
    await collector.take([])
    assert site.took == [span.id for span in spans]
    assert site.told[1:] == [f"the collector at {site.url} is back"]
    assert collector.dropped == 0


@pytest.mark.parametrize("status", [400, 404, 413])
async def test_a_part_that_is_refused_for_good_is_dropped_counted_and_told_of_once(site: Site, status: int) -> None:
    collector = site.collector()
    site.status = status
    await collector.take(some(PART + 1))
    await collector.take(some(2))
    assert collector.dropped == PART + 3
    assert site.told == [
        f"the collector at {site.url} refuses spans with {status}; {PART} spans are dropped, and all that it refuses so"
    ]
    site.status = 200
    await collector.take(some(1, 9000))
    assert site.took == [f"{9000:016x}"]
    collector.close()
    assert site.told[-1] == f"{PART + 3} spans were dropped"


@pytest.mark.parametrize("status", [302, 408, 429, 500, 503])
async def test_what_may_be_taken_later_is_kept(site: Site, status: int) -> None:
    collector, spans = site.collector(), some(3)
    site.status = status
    await collector.take(spans[:2])
    await collector.take(spans[2:])
    assert len(site.told) == 1
    site.status = 200
    await collector.take([])
    assert site.took == [span.id for span in spans]


async def test_another_cause_is_told_again_and_the_newest_are_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "KEPT", 4)
    collector = site.collector()
    for site.status in (503, 503, 429):
        await collector.take(some(1))
    assert [told.partition(";")[0][-3:] for told in site.told] == ["503", "429"]
    site.status = 200
    await collector.take(some(5, 100))
    assert site.took == [f"{100 + n:016x}" for n in range(1, 5)]
    assert collector.dropped == 4


async def test_user_and_password_go_along_and_are_not_shown(site: Site) -> None:
    base, headers = _collector(site.url.replace("//", "//a:b%40c@") + "/")
    assert base == site.url
    async with aiohttp.ClientSession(headers=headers) as session:
        await Collector(session, base, site.told.append).take(some(1))
    assert site.authorization == "Basic YTpiQGM="
    assert len(site.took) == 1


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://a:b@", "ftp://a:b@host", "http://a:b@host:x", "http://a:b@host/?c=d", "a:b@host", ""],
)
def test_a_url_that_is_none_is_named_without_what_may_be_a_password(url: str) -> None:
    with pytest.raises(ConfigError, match="URL: is not like") as raised:
        _collector(url)
    assert "a:b" not in str(raised.value)
