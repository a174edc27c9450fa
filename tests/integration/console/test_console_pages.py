"""The console's pages as a browser gets them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from console.config import ConsoleConfig
from console.pages import STATIC, enrolment_files, pages
from console.service import build
from runtime.config import Sources
from runtime.errors import ConfigError
from runtime.pages import PageServer

Get = Callable[..., Any]


@pytest.fixture
async def get() -> AsyncIterator[Get]:
    """GET of a path with these settings: the response, its body read."""
    servers: list[PageServer] = []
    async with aiohttp.ClientSession() as session:

        async def ask(path: str, config: ConsoleConfig | None = None, **given: Any) -> Any:
            server = PageServer("127.0.0.1", 0, pages(config or ConsoleConfig(), "example.test"))
            await server.start()
            servers.append(server)
            async with session.get(f"http://127.0.0.1:{server.port}{path}", **given) as response:
                await response.read()
                return response

        yield ask
    await asyncio.gather(*(server.stop() for server in servers))


async def test_the_front_page_leads_to_the_softphone(get: Get) -> None:
    front = await get("/", allow_redirects=False)
    assert (front.status, front.headers["Location"]) == (302, "softphone/")
    page = await get("/")
    assert page.status == 200
    assert "<title>Ramal</title>" in await page.text()


@pytest.mark.parametrize("name", ["", "softphone.js", "softphone.css", "icon.svg", "licences.txt", "settings.json"])
async def test_every_file_is_served_under_the_same_strict_policy(get: Get, name: str) -> None:
    response = await get(f"/softphone/{name}")
    assert response.status == 200
    policy = dict(
        directive.strip().partition(" ")[::2] for directive in response.headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"


def test_every_file_that_is_built_is_served() -> None:
    page = pages(ConsoleConfig(), "example.test")
    names = {path.name for path in STATIC.iterdir()}
    operators = {name for name in names if name.startswith("console.")}
    enrolment = {name for name in names if name.startswith("enroll.")}
    assert all(page(f"/softphone/{name}", {}) for name in names - operators - enrolment - {"index.html"})
    assert len(operators) == len(enrolment) == 3
    assert not any(page(f"/softphone/{name}", {}) for name in operators | enrolment)  # not for the public
    assert all(enrolment_files(ConsoleConfig())(name, {}) for name in enrolment - {"enroll.html"} | {""})
    assert not any(Path(name).suffix == ".map" for name in names)


@pytest.mark.parametrize("path", ["/metrics", "/location/alice@example.test", "/readyz", "/softphone/../config.py"])
async def test_what_operators_ask_is_not_where_the_pages_are(get: Get, path: str) -> None:
    assert (await get(path)).status == 404


async def test_a_page_is_sent_small_to_who_can_read_that(get: Get) -> None:
    small = await get("/softphone/softphone.js")
    whole = await get("/softphone/softphone.js", headers={"Accept-Encoding": "identity"})
    assert small.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in whole.headers
    assert int(small.headers["Content-Length"]) < 100_000 < int(whole.headers["Content-Length"])
    assert await small.text() == await whole.text()


async def test_the_service_has_a_listener_of_its_own_for_them() -> None:
    service = build(Sources({"RAMAL_CONSOLE_PORT": "0"}, {}), None, None)  # type: ignore[arg-type]  # it needs neither
    await service.start()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{service.server.port}/softphone/") as page:
            assert page.status == 200
        async with session.get(f"http://127.0.0.1:{service.server.port}/metrics") as page:
            assert page.status == 404
    await service.stop(1.0)


async def test_a_file_that_has_not_changed_is_not_sent_again(get: Get) -> None:
    first = await get("/softphone/softphone.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await get("/softphone/softphone.js", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status == 304
    assert "Content-Security-Policy" in again.headers


@pytest.mark.parametrize(
    ("config", "known", "connect"),
    [
        (ConsoleConfig(), {"websocket": "", "port": 0}, "'self'"),
        (ConsoleConfig(websocket_port=8081), {"websocket": "", "port": 8081}, "'self' ws://*:8081 wss://*:8081"),
        (
            ConsoleConfig(websocket="wss://sip.example.test:7443/sip"),
            {"websocket": "wss://sip.example.test:7443/sip", "port": 0},
            "'self' wss://sip.example.test:7443",
        ),
    ],
)
async def test_the_page_learns_its_websocket_and_may_connect_nowhere_else(
    get: Get, config: ConsoleConfig, known: dict[str, object], connect: str
) -> None:
    response = await get("/softphone/settings.json", config)
    assert await response.json() == {"domain": "example.test", **known}
    assert f"connect-src {connect};" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "url", ["https://sip.example.test", "wss://sip.example.test/sip; script-src *", "wss://a/?b", "wss://", "sip"]
)
def test_a_websocket_that_is_no_url_or_would_change_the_policy_is_a_fault_of_the_settings(url: str) -> None:
    with pytest.raises(ConfigError, match="RAMAL_CONSOLE_WEBSOCKET"):
        build(Sources({"RAMAL_CONSOLE_WEBSOCKET": url}, {}), None, None)  # type: ignore[arg-type]  # it needs neither


def test_a_port_that_is_none_is_a_fault_of_the_settings() -> None:
    with pytest.raises(ConfigError, match="RAMAL_CONSOLE_WEBSOCKET_PORT"):
        build(Sources({"RAMAL_CONSOLE_WEBSOCKET_PORT": "70000"}, {}), None, None)  # type: ignore[arg-type]
