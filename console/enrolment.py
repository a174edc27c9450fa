"""The page for users: whoever proves the directory's password gets a phone that logs in (see `authsvc.enrolment`).

Nobody is logged in here and there is no cookie, so nothing that another site sends could use one: what is asked for is
proved in the request itself. `Origin` must be ours all the same, or any page could have its visitors guess passwords
from their own addresses. A password comes over TLS, or from this machine.
"""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

import msgspec
import segno
from aiohttp import web
from prometheus_client import Counter

from authsvc.enrolment import LONGEST_PASSWORD, Enroller, Enrolment, LockedOut, Who, phone_uri
from console.config import ConsoleConfig
from console.gate import NOT_KEPT, network
from console.pages import enrolment_files
from events.limits import USERNAME
from runtime.errors import ConfigError, DatabaseRefused, Unavailable
from runtime.http import Route

log = logging.getLogger("ramal.console")

BASE = "/enroll/"
WAITING = 32
"""Attempts that are under way or wait for the directory; a further one hears 503."""
PROVISIONING_SECONDS = 600
PROVISIONINGS = 1000
"""Files that wait to be fetched; the oldest goes first."""
_ATTEMPTS = Counter("ramal_console_enrolments", "Attempts to enrol on the page, by outcome.", ["outcome"])
for _outcome in ("enrolled", "wrong_password", "locked_out", "busy", "away"):
    _ATTEMPTS.labels(_outcome)


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    password: str
    generated: bool = False


_decode = msgspec.json.Decoder(_Asked)


class EnrolmentPage:
    """All routes."""

    def __init__(self, enroller: Enroller, config: ConsoleConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._enroller = enroller
        self._origin = config.origin
        self._clock = clock
        self._files = enrolment_files(config)
        self._under_way = 0
        self._provisioning: dict[str, tuple[bytes, float]] = {}
        self.routes: Sequence[Route] = (
            ("GET", BASE.rstrip("/"), self._front),
            ("GET", f"{BASE}{{name:[a-z.]*}}", self._file),
            ("GET", f"{BASE}api/settings", self._settings),
            ("POST", f"{BASE}api/enroll", self._enroll),
            ("GET", f"{BASE}phone/{{token:[A-Za-z0-9_-]{{43}}}}", self._phone),
        )

    async def _front(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "enroll/"})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        found = self._files(request.match_info["name"], request.headers)
        if found is None:
            raise web.HTTPNotFound
        return web.Response(status=found.status, headers=found.fields, body=found.body)

    async def _settings(self, _: web.Request) -> web.StreamResponse:
        known = {"generates": self._enroller.generates, "domains": self._enroller.domains}
        return web.json_response(known, headers=NOT_KEPT)

    async def _enroll(self, request: web.Request) -> web.StreamResponse:
        """POST of name and password: what phones log in with, or which of the refusals."""
        if why := self._foreign(request):
            return _no(403, why)
        try:
            asked = _decode.decode(await request.read())
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _no(400, "bad_request")
        if not 0 < len(asked.name) <= USERNAME or not 0 < len(asked.password) <= LONGEST_PASSWORD:
            return _no(400, "bad_request")
        if self._under_way >= WAITING:
            _ATTEMPTS.labels("busy").inc()
            return _no(503, "busy", 2)
        self._under_way += 1
        try:
            who = Who(source=network(request.remote or ""))
            found = await self._enroller.attempt(self._name(asked.name), asked.password, who, generated=asked.generated)
        except (Unavailable, DatabaseRefused, ConfigError) as error:
            log.warning("nobody can enrol now", extra={"cause": str(error)})
            _ATTEMPTS.labels("away").inc()
            return _no(503, "away", 5)
        finally:
            self._under_way -= 1
        if isinstance(found, Enrolment):
            _ATTEMPTS.labels("enrolled").inc()
            return web.json_response(self._told(found, request.headers.get("Origin", "")), headers=NOT_KEPT)
        if isinstance(found, LockedOut):
            _ATTEMPTS.labels("locked_out").inc()
            return _no(429, "locked_out", found.seconds)
        _ATTEMPTS.labels("wrong_password").inc()
        return _no(401, "wrong_password")

    def _name(self, typed: str) -> str:
        """The directory's name of somebody who may have typed his address, as his phone wants it."""
        name, _, domain = typed.rpartition("@")
        return name if name and domain.lower() in self._enroller.domains else typed

    def _told(self, made: Enrolment, origin: str) -> dict[str, object]:
        """What the page shows; the phone password and its picture where there is one, this one time."""
        told: dict[str, object] = {"name": made.name, "domains": made.domains, "retired": bool(made.was_retired_for)}
        if not made.phone_password:
            return told
        fetched = origin.startswith("https:")
        text = f"{origin}{BASE}phone/{self._keep(linphone(made))}" if fetched else ""
        qr = picture(text or phone_uri(made.name, made.domains[0], made.phone_password))
        return {**told, "phone_password": made.phone_password, "qr": qr, "fetched": fetched}

    def _keep(self, file: bytes) -> str:
        now = self._clock()
        for token in [token for token, (_, until) in self._provisioning.items() if until <= now]:
            del self._provisioning[token]
        if len(self._provisioning) >= PROVISIONINGS:
            del self._provisioning[next(iter(self._provisioning))]
        token = secrets.token_urlsafe(32)
        self._provisioning[token] = file, now + PROVISIONING_SECONDS
        return token

    async def _phone(self, request: web.Request) -> web.StreamResponse:
        """A provisioning file, to whoever comes first with its token, and once."""
        file, until = self._provisioning.pop(request.match_info["token"], (b"", 0.0))
        if not file or until <= self._clock():
            raise web.HTTPNotFound
        return web.Response(body=file, content_type="application/xml", charset="utf-8", headers=NOT_KEPT)

    def _foreign(self, request: web.Request) -> str:
        """Why a password is not taken from this request; "" where it is."""
        if request.content_type != "application/json":
            return "not_our_page"
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return "not_our_page"
        here = _is_loopback(request.host)
        origin = request.headers.get("Origin")
        if origin is None:  # no browser
            return "" if here or self._origin.startswith("https:") else "needs_tls"
        if origin != self._origin and urlsplit(origin).netloc != request.host:
            return "not_our_page"
        return "" if origin.startswith("https:") or here else "needs_tls"


def linphone(made: Enrolment) -> bytes:
    """A file of Linphone's remote provisioning: its accounts, one a domain, with the phone password.

    https://wiki.linphone.org/xwiki/wiki/public/view/Lib/Features/Remote%20Provisioning/
    """
    sections = []
    for number, domain in enumerate(made.domains):
        uri = phone_uri(made.name, domain)
        account = {"reg_identity": uri, "reg_proxy": f"<sip:{domain}>", "reg_sendregister": "1", "realm": domain}
        secret = {"username": made.name, "passwd": made.phone_password, "realm": domain, "domain": domain}
        sections += [(f"proxy_{number}", account), (f"auth_info_{number}", secret)]
    sections.append(("sip", {"default_proxy": "0"}))
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<config xmlns="http://www.linphone.org/xsds/lpconfig.xsd">']
    for name, entries in sections:
        lines.append(f'  <section name="{name}">')
        lines += [f'    <entry name="{key}" overwrite="true">{escape(text)}</entry>' for key, text in entries.items()]
        lines.append("  </section>")
    return "\n".join([*lines, "</config>", ""]).encode()


def picture(text: str) -> dict[str, object]:
    """A QR code: modules of a side, and the dark ones as the path of an SVG."""
    rows = [list(row) for row in segno.make(text, error="m", micro=False).matrix]
    path = "".join(f"M{x} {y}h1v1h-1z" for y, row in enumerate(rows) for x, dark in enumerate(row) if dark)
    return {"size": len(rows), "path": path}


def _is_loopback(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _no(status: int, error: str, seconds: int = 0) -> web.Response:
    """A refusal by a name that the page has words for; `seconds`: when to come again."""
    headers = {**NOT_KEPT, "Retry-After": str(seconds)} if seconds else NOT_KEPT
    return web.json_response({"error": error, "seconds": seconds}, status=status, headers=headers)
