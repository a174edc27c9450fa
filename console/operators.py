"""The operators' pages: files, and what these ask of this process, below `/console/` of the operators' listener."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from cdr.figures import Page as Figures
from console.calls import one as call
from console.calls import page as calls
from console.config import ConsoleConfig
from console.gate import BASE, NOT_KEPT, Gate, Guest, refused
from console.health import Health
from console.live import Live
from console.log_outs import LogOuts
from console.logins import page as failures
from console.pages import operators_files
from console.registrations import aor_of, count, of_aor
from console.registrations import page as registrations
from console.removal import removed
from events.limits import CONTACT
from locator.history import known_since
from runtime.database.port import Database
from runtime.errors import DatabaseRefused, LogRefused, Unavailable
from runtime.http import Route
from runtime.log.port import Log

log = logging.getLogger("ramal.console")

Asked = Callable[[Mapping[str, str]], Awaitable[Any]]
"""An answer, as JSON, to a query; raises ValueError that names the parameter that is wrong."""


class _Removal(msgspec.Struct, forbid_unknown_fields=True):
    aor: str
    contact: str | None = None


_decode_removal = msgspec.json.Decoder(_Removal)


class Operators:
    """All routes."""

    def __init__(self, gate: Gate, config: ConsoleConfig, domain: str, log_: Log, tables: Database) -> None:
        self._gate = gate
        self._domain = domain
        self._log = log_
        self._tables = tables
        self._files = operators_files(config)
        self._live = Live(gate, tables)
        self._health = Health(config.processes, log_, tables)
        self._figures = Figures(log_)
        self.routes: Sequence[Route] = (
            ("GET", BASE.rstrip("/"), self._front),
            ("GET", f"{BASE}{{name:[a-z.]*}}", self._file),
            ("POST", f"{BASE}api/log-in", gate.log_in),
            ("POST", f"{BASE}api/log-out", gate.guarded(gate.log_out)),
            ("GET", f"{BASE}api/me", gate.me),
            self._get("registrations", lambda query: registrations(self._tables, query)),
            self._get("registrations/count", lambda query: count(self._tables, query)),
            self._get("registration", self._registration),
            self._get("failures", self._failures),
            self._get("known-since", self._known_since),
            self._get("calls", lambda query: calls(self._tables, query)),
            self._get("call", lambda query: call(self._tables, self._log, query)),
            ("GET", f"{BASE}api/health", gate.guarded(self._health_now)),
            ("GET", f"{BASE}api/statistics", gate.guarded(self._statistics)),
            ("GET", f"{BASE}api/events", gate.guarded(self._live.events)),
            ("POST", f"{BASE}api/remove", gate.guarded(self._remove, "operator")),
            ("POST", f"{BASE}api/kick", gate.guarded(self._kick, "operator")),
            *LogOuts(gate, log_).routes,
        )

    def start(self) -> None:
        """Begins to read the figures."""
        self._figures.start()

    async def stop(self) -> None:
        """Ends what never ends by itself."""
        await self._live.stop()
        await self._figures.stop()

    def _get(self, name: str, asked: Asked) -> Route:
        async def answered(request: web.Request, guest: Guest) -> web.StreamResponse:
            del guest
            try:
                found = await asked(request.query)
            except ValueError as error:
                return refused(400, "bad_parameter", detail=str(error))
            except DatabaseRefused as error:
                return refused(400, "bad_parameter", detail=str(error))
            except Unavailable as error:
                log.warning("the console cannot answer now", extra={"asked": name, "cause": str(error)})
                return refused(503, "away", 2, str(error))
            if found is None:
                return refused(404, "not_found")
            return web.Response(body=msgspec.json.encode(found), content_type="application/json", headers=NOT_KEPT)

        return "GET", f"{BASE}api/{name}", self._gate.guarded(answered)

    async def _front(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": BASE})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        found = self._files(request.match_info["name"], request.headers)
        if found is None:
            raise web.HTTPNotFound
        return web.Response(status=found.status, headers=found.fields, body=found.body)

    async def _registration(self, query: Mapping[str, str]) -> Any:
        return await of_aor(self._tables, aor_of(query.get("aor", ""), self._domain))

    async def _failures(self, query: Mapping[str, str]) -> Any:
        return await failures(self._log, aor_of(query.get("aor", ""), self._domain))

    async def _health_now(self, request: web.Request, guest: Guest) -> web.StreamResponse:
        del guest
        host, port = request.get_extra_info("sockname")[:2]
        found = await self._health.now(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        return web.Response(body=msgspec.json.encode(found), content_type="application/json", headers=NOT_KEPT)

    async def _statistics(self, request: web.Request, guest: Guest) -> web.StreamResponse:
        del guest
        answer = await self._figures.statistics(request)
        if answer.status == 503:
            return refused(503, "reading", 2)
        if answer.status == 400:
            return refused(400, "bad_parameter")
        answer.headers.update(NOT_KEPT)
        return answer

    async def _known_since(self, query: Mapping[str, str]) -> Any:
        """From when on the past is known; None while nothing is."""
        del query
        return {"since": await known_since(self._tables)}

    async def _remove(self, request: web.Request, guest: Guest) -> web.StreamResponse:
        """Ends the bindings of an AOR or the one with this contact, in the operator's name."""
        return await self._removed(request, guest, kick=False)

    async def _kick(self, request: web.Request, guest: Guest) -> web.StreamResponse:
        """The same, and closes their connections: the phones register again."""
        return await self._removed(request, guest, kick=True)

    async def _removed(self, request: web.Request, guest: Guest, *, kick: bool) -> web.StreamResponse:
        try:
            asked = _decode_removal.decode(await request.read())
            aor = aor_of(asked.aor, self._domain)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
            return refused(400, "bad_request")
        if asked.contact is not None and len(asked.contact) > CONTACT:
            return refused(400, "bad_request")
        what = "an operator kicks" if kick else "an operator removes"
        log.info(what, extra={"operator": guest.name, "aor": aor, "contact": asked.contact})
        try:
            recorded = await removed(self._log, self._tables, aor, asked.contact, guest.name, kick=kick)
        except (Unavailable, LogRefused) as error:
            return refused(503, "away", 2, str(error))
        gone = [change.contact for change in recorded.changes]
        return web.json_response({"removed": gone, "left": len(recorded.state.bindings)}, headers=NOT_KEPT)
