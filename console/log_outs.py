"""Who is logged in, and the end of all sessions of one operator: of any for who may, of his own for everybody.

Done whether the log takes the record of it or not: a session that was stolen does not wait for Kafka.
"""

import logging
import secrets
from collections.abc import Sequence

import msgspec
from aiohttp import web

from console.audited import audited
from console.gate import BASE, NOT_KEPT, Gate, Guest, refused
from events.audit import SessionsEnded
from runtime.errors import LogRefused, Unavailable
from runtime.http import Route
from runtime.log.port import Log

log = logging.getLogger("ramal.console")


class _LogOut(msgspec.Struct, forbid_unknown_fields=True):
    name: str


_decode = msgspec.json.Decoder(_LogOut)


class LogOuts:
    """Both routes."""

    def __init__(self, gate: Gate, log_: Log) -> None:
        self._gate = gate
        self._log = log_
        self.routes: Sequence[Route] = (
            ("GET", f"{BASE}api/operators", gate.guarded(self._operators)),
            ("POST", f"{BASE}api/log-out-everywhere", gate.guarded(self._log_out_everywhere)),
        )

    async def _operators(self, request: web.Request, guest: Guest) -> web.StreamResponse:
        del request, guest
        found = [each._asdict() for each in self._gate.operators()]
        return web.json_response({"operators": found}, headers=NOT_KEPT)

    async def _log_out_everywhere(self, request: web.Request, guest: Guest) -> web.StreamResponse:
        try:
            name = _decode.decode(await request.read()).name
        except (msgspec.DecodeError, UnicodeDecodeError):
            return refused(400, "bad_request")
        if name != guest.name and guest.account.role != "operator":
            return refused(403, "read_only")
        of = next((each for each in self._gate.operators() if each.name == name), None)
        if of is None:
            return refused(404, "not_found")
        self._gate.log_out_everywhere(name)
        done = {"operator": guest.name, "of": name, "sessions": of.sessions}
        log.info("an operator ends all sessions of one", extra=done)
        try:
            ended = SessionsEnded(guest.name, name, of.sessions)
            await self._log.append([await audited(self._log, ended, "console", secrets.token_hex(10))])
        except (Unavailable, LogRefused) as error:
            log.error("the log has no record of sessions that were ended", extra={**done, "cause": str(error)})
        return web.json_response({"ended": of.sessions}, headers=NOT_KEPT)
