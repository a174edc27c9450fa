"""The console over a file of its own, on loopback, and a browser that says what its page would."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from authsvc.users.ldap_people import LdapPeople
from console.config import ConsoleConfig
from console.directory import LdapOperators
from console.service import ConsoleService
from runtime.config import Common
from runtime.database.sqlite import SQLiteDatabase
from runtime.http import HttpServer
from runtime.log.embedded.log import EmbeddedLog
from runtime.store import EmbeddedStore

PASSWORDS = {"maria": "correct horse", "rui": "battery staple"}
PARTITIONS = 4


class Browser:
    """One that keeps cookies, and says what the page would."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        self.csrf = ""

    async def get(self, path: str, **query: Any) -> tuple[int, Any]:
        async with self.session.get(f"{self.base}api/{path}", params=query) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, body: Any, **fields: str) -> tuple[int, Any]:
        fields = {"X-CSRF-Token": self.csrf, **fields}
        async with self.session.post(f"{self.base}api/{path}", json=body, headers=fields) as answer:
            return answer.status, await answer.json()

    async def log_in(self, name: str, password: str = "", **fields: str) -> tuple[int, Any]:
        status, said = await self.post("log-in", {"name": name, "password": password or PASSWORDS[name]}, **fields)
        self.csrf = said.get("csrf", "")
        return status, said


class ConsoleSite:
    """A console on loopback over a file of its own."""

    def __init__(self, directory: Path) -> None:
        self.operators = directory / "operators"
        self.path = directory / "ramal.db"
        self.store = EmbeddedStore(self.path)
        self.database = SQLiteDatabase(self.store, "questions")
        self.browsers: list[Browser] = []
        self.base = ""

    async def start(self, people: LdapPeople | None = None, **settings: Any) -> None:
        """`people`: the directory of `groups`."""
        self.log = EmbeddedLog(self.store, PARTITIONS)
        await self.log.start()
        await self.database.start()
        await self.database.migrate()
        config = ConsoleConfig(operators_file=str(self.operators), **settings)
        self.directory = LdapOperators(people, config.groups) if people else None
        common = Common(domain="example.test")
        self.service = ConsoleService(config, common, self.log, self.database, self.directory)
        self.service.server = None
        self.http = HttpServer("127.0.0.1", 0, list, self.service.routes)
        await self.service.start()
        await self.http.start()
        self.base = f"http://127.0.0.1:{self.http.port}/console/"

    async def stop(self) -> None:
        await asyncio.gather(*(browser.session.close() for browser in self.browsers))
        await self.service.stop(1.0)
        await self.http.stop()
        await self.store.stop()

    def browser(self) -> Browser:
        self.browsers.append(Browser(self.base))
        return self.browsers[-1]
