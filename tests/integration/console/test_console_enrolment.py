"""The page on which users enrol, over HTTP, on a real OpenLDAP of hashes."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import aiohttp
import pytest

from authsvc.config import EnrolmentSettings
from authsvc.enrolment import Enroller, Enrolment
from authsvc.users.enrolled import EnrolledUsers
from authsvc.users.ha1 import from_password
from authsvc.users.sealing import Keys
from console.config import ConsoleConfig
from console.enrolment import PROVISIONING_SECONDS, EnrolmentPage, linphone
from console.service import ConsoleService
from ramal.processes import free_port
from runtime.config import Common, Domain
from runtime.database.sqlite import SQLiteDatabase
from runtime.http import HttpServer
from runtime.log.embedded.log import EmbeddedLog
from runtime.store import EmbeddedStore
from tests.kit.hashed_directory import HashedDirectory, hashed_directory

pytestmark = pytest.mark.integration

REALM, PASSWORD = "example.test", "canary-right"
SEALING = "e1:" + "11" * 32


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HashedDirectory]:
    with hashed_directory(tmp_path_factory.mktemp("hashed")) as directory:
        directory.add("alice", PASSWORD, "ARGON2")
        yield directory


class Site:
    """The two listeners of a console, and what is stored."""

    def __init__(self, directory: HashedDirectory, path: Path, origin: str = "") -> None:
        self.store = EmbeddedStore(path / "ramal.db")
        self.database = SQLiteDatabase(self.store, "questions")
        self.log = EmbeddedLog(self.store, 4)
        self._directory, self._origin = directory, origin

    async def start(self) -> None:
        await self.log.start()
        await self.database.start()
        await self.database.migrate()
        await self.log.create_topics(4)
        keys = Keys(lambda: SEALING)
        enroller = Enroller(
            EnrolmentSettings(), self._directory.settings(), {REALM: Domain()}, keys, self.database, self.log
        )
        config = ConsoleConfig(port=free_port("127.0.0.1"), origin=self._origin)
        self.service = ConsoleService(config, Common(), self.log, self.database, None, enroller)
        self.http = HttpServer("127.0.0.1", 0, list, self.service.routes)
        await self.service.start()
        await self.http.start()
        self.enrolled = EnrolledUsers(self.database, keys)
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def stop(self) -> None:
        await self.session.close()
        await self.service.stop(1.0)
        await self.http.stop()
        await self.store.stop()

    @property
    def bases(self) -> list[str]:
        """Of the operators' listener and of the public's."""
        assert self.service.server
        return [f"http://127.0.0.1:{port}" for port in (self.http.port, self.service.server.port)]

    async def post(self, body: Any, base: str = "", **fields: str) -> tuple[int, Any]:
        base = base or self.bases[0]
        fields = {"Origin": base, **{name.replace("_", "-"): value for name, value in fields.items()}}
        async with self.session.post(f"{base}/enroll/api/enroll", json=body, headers=fields) as answer:
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Set-Cookie" not in answer.headers
            return answer.status, await answer.json()


@pytest.fixture
async def site(directory: HashedDirectory, tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(directory, tmp_path)
    await site.start()
    yield site
    await site.stop()


RIGHT = {"name": "alice", "password": PASSWORD}


async def test_a23_a_user_enrols_on_either_listener_without_being_an_operator(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for base in site.bases:
        async with site.session.get(f"{base}/enroll") as page:
            text = await page.text()
            policy = page.headers["Content-Security-Policy"]
        assert 'id="enroll"' in text
        assert "script-src 'self'" in policy
        assert "require-trusted-types-for 'script'" in policy
        status, told = await site.post(RIGHT, base)
        assert (status, told) == (200, {"name": "alice", "domains": [REALM], "retired": False})
    status, told = await site.post({**RIGHT, "name": f"alice@{REALM.upper()}"})
    assert (status, told["name"]) == (200, "alice"), "as his phone calls him"
    assert (await site.post({**RIGHT, "name": "alice@elsewhere.test"}))[0] == 401
    found = await site.enrolled.find([("alice", REALM)])
    assert found == {("alice", REALM): from_password("alice", REALM, PASSWORD)}
    assert "canary" not in caplog.text + "".join(str(record.__dict__) for record in caplog.records)


async def test_a23_a_wrong_password_and_too_many_of_them_are_said_with_when_to_come_again(site: Site) -> None:
    for _ in range(5):
        status, told = await site.post({"name": "alice", "password": "wrong"})
        assert (status, told["error"]) == (401, "wrong_password")
    status, told = await site.post(RIGHT)
    assert (status, told["error"], 58 <= told["seconds"] <= 60) == (429, "locked_out", True)
    assert await site.enrolled.find([("alice", REALM)]) == {}


async def test_no_password_is_taken_from_another_page_nor_without_tls_from_elsewhere(site: Site) -> None:
    there = site.bases[0].removeprefix("http://")
    refused: list[tuple[dict[str, str], str]] = [
        ({"Origin": "https://evil.test"}, "not_our_page"),
        ({"Origin": "null"}, "not_our_page"),
        ({"Sec_Fetch_Site": "cross-site"}, "not_our_page"),
        ({"Sec_Fetch_Site": "same-site"}, "not_our_page"),
        ({"Host": "phones.example.test", "Origin": "http://phones.example.test"}, "needs_tls"),
        ({"Host": "192.0.2.1:8080", "Origin": "http://192.0.2.1:8080"}, "needs_tls"),
        ({"Host": "phones.example.test", "Origin": f"http://{there}"}, "not_our_page"),
    ]
    for fields, error in refused:
        assert await site.post(RIGHT, **fields) == (403, {"error": error, "seconds": 0}), fields
    assert await site.enrolled.find([("alice", REALM)]) == {}
    for fields in (
        {"Host": "phones.example.test", "Origin": "https://phones.example.test"},
        {"Sec_Fetch_Site": "same-origin"},
    ):
        assert (await site.post(RIGHT, **fields))[0] == 200, fields


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"name": "alice"},
        {"name": "", "password": "x"},
        {"name": "alice", "password": ""},
        {"name": "a" * 65, "password": "x"},
        {"name": "alice", "password": "x" * 257},
        {"name": "alice", "password": "x", "more": 1},
        {"name": 1, "password": "x"},
    ],
)
async def test_what_is_no_name_and_password_is_refused(site: Site, body: Any) -> None:
    assert await site.post(body) == (400, {"error": "bad_request", "seconds": 0})


async def test_a_form_of_another_site_and_a_body_without_end_are_refused(site: Site) -> None:
    url = f"{site.bases[1]}/enroll/api/enroll"
    async with site.session.post(url, data=RIGHT) as answer:
        assert answer.status == 403
    async with site.session.post(url, data=b"x" * 70_000, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 413


async def test_a_phone_password_comes_with_a_code_and_by_https_with_a_file_for_linphone_once(site: Site) -> None:
    status, told = await site.post({**RIGHT, "generated": True})
    assert (status, told["fetched"]) == (200, False)
    assert told["qr"]["size"] >= 21
    assert told["qr"]["path"].startswith("M0 0h1v1h-1z")
    https = {"Host": "phones.example.test", "Origin": "https://phones.example.test"}
    status, told = await site.post({**RIGHT, "generated": True}, **https)
    assert (status, told["fetched"]) == (200, True)
    page = next(
        route[2].__self__  # type: ignore[attr-defined]
        for route in site.service.routes
        if getattr(route[2], "__self__", None).__class__ is EnrolmentPage
    )
    [token] = page._provisioning
    url = f"{site.bases[0]}/enroll/phone/{token}"
    async with site.session.get(url) as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
        file = ElementTree.fromstring(await answer.read())
    entries = {each.get("name"): each.text for each in file.iter() if each.get("name")}
    assert (entries["reg_identity"], entries["passwd"]) == (f"sip:alice@{REALM}", told["phone_password"])
    async with site.session.get(url) as answer:
        assert answer.status == 404
    found = await site.enrolled.find([("alice", REALM)])
    assert found == {("alice", REALM): from_password("alice", REALM, told["phone_password"])}


async def test_a_file_for_a_phone_is_not_kept_for_ever_nor_are_many(site: Site, directory: HashedDirectory) -> None:
    now = [0.0]
    keys = Keys(lambda: SEALING)
    enroller = Enroller(EnrolmentSettings(), directory.settings(), [REALM], keys, site.database, site.log)
    page = EnrolmentPage(enroller, ConsoleConfig(), lambda: now[0])
    for _ in range(1100):
        page._keep(b"x")
    assert len(page._provisioning) == 1000
    now[0] = PROVISIONING_SECONDS
    page._keep(b"x")
    assert len(page._provisioning) == 1
    enroller.stop()


def test_a_file_for_linphone_has_an_account_for_each_domain_and_escapes_names() -> None:
    made = Enrolment("o'neil<&", (REALM, "other.test"), "pass-word", "")
    file = ElementTree.fromstring(linphone(made))
    sections = [each.get("name") for each in file]
    assert sections == ["proxy_0", "auth_info_0", "proxy_1", "auth_info_1", "sip"]
    names = [each.text for each in file.iter() if each.get("name") == "username"]
    assert names == ["o'neil<&", "o'neil<&"]


async def test_without_a_key_or_a_directory_there_is_no_such_page(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "ramal.db")
    service = ConsoleService(ConsoleConfig(), Common(), EmbeddedLog(store, 4), SQLiteDatabase(store))
    assert not [route for route in service.routes if route[1].startswith("/enroll")]
