"""Who may: log-in, log-out, the session's cookie, and what every request to the operators' pages must bring along.

The cookie alone changes nothing. A request that does must say its session's token in `X-CSRF-Token`, be JSON, and come
from our own page: `Origin` is ours where a browser says one.
"""

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from typing import Literal, NamedTuple

import msgspec
from aiohttp import web
from prometheus_client import Counter

from authsvc.memory.lockouts import Lockouts
from authsvc.users.ldap_connection import LdapUnavailable
from console.accounts import LONGEST, Account, Accounts, is_right
from console.config import ConsoleConfig, Role
from console.directory import LdapOperators, No
from console.sessions import Session, Sessions

log = logging.getLogger("ramal.console")

BASE = "/console/"
COOKIE = "ramal-console"
FAILURES = 5
"""Wrong passwords of one name from one address, or of any names, until log-ins from there wait."""
FAILURES_OF_SOURCE = 20
LOCKED_SECONDS = 60
AT_ONCE = 2
"""Passwords that are verified at the same time: 64 MiB each."""
WAITING = 16
"""Log-ins that may wait for that."""
_LOG_INS = Counter("ramal_console_logins", "Log-ins of operators by outcome.", ["outcome"])


class Guest(NamedTuple):
    """Whoever a request is of."""

    account: Account
    session: Session

    @property
    def name(self) -> str:
        return self.account.name


class Operator(NamedTuple):
    """Who may log in, and where he is."""

    name: str
    role: Role
    sessions: int
    used: int | None
    """When the last of them was used, in milliseconds; None: he has none."""


Handler = Callable[[web.Request, Guest], Awaitable[web.StreamResponse]]


class _LogIn(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    password: str


_decode = msgspec.json.Decoder(_LogIn)


class _Queue:
    """`AT_ONCE` of those who log in, while others wait."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._inside = 0

    @property
    def full(self) -> bool:
        """Whether no more may wait."""
        return self._inside >= WAITING

    async def __aenter__(self) -> None:
        self._inside += 1
        try:
            await self._turn.acquire()
        except BaseException:
            self._inside -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self._turn.release()
        self._inside -= 1


class Gate:
    """Stands before every handler."""

    def __init__(
        self,
        accounts: Accounts,
        config: ConsoleConfig,
        directory: LdapOperators | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Names of `accounts` are never asked of the `directory`."""
        self._accounts = accounts
        self._directory = directory
        self._origin = config.origin
        self._clock = clock
        self._sessions = Sessions()
        self._lockouts = Lockouts(FAILURES, LOCKED_SECONDS, 10_000)
        self._sources = Lockouts(FAILURES_OF_SOURCE, LOCKED_SECONDS, 10_000)
        # Apart: a directory that hangs keeps nobody waiting who is not in it.
        self._hashing, self._asking = _Queue(), _Queue()

    def guarded(
        self, handler: Handler, role: Role = "read-only"
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The handler for who is logged in and may; a POST only with the session's token, from our page."""

        async def answered(request: web.Request) -> web.StreamResponse:
            guest = self.guest(request)
            if guest is None:
                return refused(401, "logged_out")
            if request.method != "GET" and not (self._is_ours(request) and _has_token(request, guest.session)):
                return refused(403, "not_our_page")
            if role == "operator" and guest.account.role != "operator":
                return refused(403, "read_only")
            return await handler(request, guest)

        return answered

    def guest(self, request: web.Request) -> Guest | None:
        """Whose session the cookie is of; None where it is over, or its operator has gone or a new password."""
        token = request.cookies.get(COOKIE, "")
        session = self._sessions.of(token, self._now()) if token else None
        if session is None:
            return None
        account = self._account(session.name)
        if account is None or account.proof != session.proof:
            self._sessions.end(token)
            return None
        return Guest(account, session)

    async def log_in(self, request: web.Request) -> web.StreamResponse:
        """POST of name and password: a session, or which of the refusals."""
        if not self._is_ours(request):
            return refused(403, "not_our_page")
        try:
            asked = _decode.decode(await request.read())
        except (msgspec.DecodeError, UnicodeDecodeError):
            return refused(400, "bad_request")
        if len(asked.name) > LONGEST or len(asked.password) > LONGEST:
            return refused(400, "bad_request")
        source = network(request.remote or "")
        if seconds := self._locked(asked.name, source):
            _LOG_INS.labels("locked_out").inc()
            return refused(429, "locked_out", seconds)
        account = self._accounts.get(asked.name)
        elsewhere = self._directory if account is None else None
        queue = self._asking if elsewhere else self._hashing
        if queue.full:
            _LOG_INS.labels("busy").inc()
            return refused(503, "busy", 2)
        # Counted before it is known to be wrong: many at once are no way round the limit.
        self._lockouts.failed(asked.name, source, self._now())
        self._sources.failed("", source, self._now())
        try:
            async with queue:
                found = await self._proven(account, elsewhere, asked)
        except LdapUnavailable as error:
            self._lockouts.retracted(asked.name, source)
            self._sources.retracted("", source)
            _LOG_INS.labels("directory_away").inc()
            log.warning("an operator cannot log in now", extra={"source": source, "cause": str(error)})
            return refused(503, "directory_away", 10)
        if isinstance(found, str):
            _LOG_INS.labels("failed").inc()
            # People type passwords into the wrong field: a name that is nobody's is not shown.
            named = asked.name if account or found == "no_role" else ""
            log.warning("an operator's log-in failed", extra={"operator": named, "source": source, "cause": found})
            return refused(403 if found == "no_role" else 401, found)
        self._lockouts.succeeded(asked.name, source)
        self._sources.retracted("", source)  # its other failures stand: one good name is no way to try all others
        self._sessions.end(request.cookies.get(COOKIE, ""))
        return self._begun(found, source)

    def _begun(self, account: Account, source: str) -> web.StreamResponse:
        """A new session's cookie, whatever the browser brought along."""
        _LOG_INS.labels("done").inc()
        log.info("an operator logged in", extra={"operator": account.name, "role": account.role, "source": source})
        token = secrets.token_urlsafe(32)
        session = self._sessions.begin(token, secrets.token_urlsafe(24), account.name, account.proof, self._now())
        answer = web.json_response(said(Guest(account, session)), headers=NOT_KEPT)
        answer.set_cookie(
            COOKIE, token, path=BASE, httponly=True, samesite="Strict", secure=self._origin.startswith("https:")
        )
        return answer

    async def log_out(self, request: web.Request, guest: Guest) -> web.StreamResponse:
        """Ends the session."""
        self._sessions.end(request.cookies.get(COOKIE, ""))
        log.info("an operator logged out", extra={"operator": guest.name})
        answer = web.json_response({}, headers=NOT_KEPT)
        answer.del_cookie(COOKIE, path=BASE)
        return answer

    async def me(self, request: web.Request) -> web.StreamResponse:
        """Who is logged in; nobody is no fault."""
        guest = self.guest(request)
        return web.json_response(said(guest) if guest else NOBODY, headers=NOT_KEPT)

    def operators(self) -> list[Operator]:
        """Those of the file, and whoever of a directory is logged in, by name."""
        sessions = self._sessions.open(self._now())
        found = []
        for name in sorted({*self._accounts.names(), *(session.name for session in sessions)}):
            if account := self._account(name):
                used = [session.used for session in sessions if (session.name, session.proof) == (name, account.proof)]
                found.append(Operator(name, account.role, len(used), max(used, default=None)))
        return found

    def log_out_everywhere(self, name: str) -> None:
        """Ends all sessions of an operator."""
        self._sessions.end_all(name)

    def _account(self, name: str) -> Account | None:
        account = self._accounts.get(name)
        return account if account or self._directory is None else self._directory.get(name)

    async def _proven(
        self, account: Account | None, elsewhere: LdapOperators | None, asked: _LogIn
    ) -> Account | No | Literal["no_operators"]:
        """Who logs in, or why nobody does; raises LdapUnavailable."""
        if elsewhere:
            return await elsewhere.log_in(asked.name, asked.password)
        if await asyncio.to_thread(is_right, account, asked.password) and account:
            return account
        return "wrong_password" if len(self._accounts) or self._directory else "no_operators"

    def _locked(self, name: str, source: str) -> int:
        now = self._now()
        return max(self._lockouts.remaining(name, source, now), self._sources.remaining("", source, now))

    def _is_ours(self, request: web.Request) -> bool:
        """Whether a browser sent this from our own page, or it is none: JSON cannot be sent from elsewhere unasked."""
        if request.content_type != "application/json":
            return False
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return False
        if not self._origin and not is_literal(request.host):
            return False
        origin = request.headers.get("Origin")
        return origin is None or origin == (self._origin or f"http://{request.host}")

    def _now(self) -> int:
        return int(self._clock() * 1000)


NOBODY = {"name": "", "role": "", "csrf": ""}
NOT_KEPT = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def said(guest: Guest) -> dict[str, str]:
    """What the page is told of who is logged in."""
    return {"name": guest.name, "role": guest.account.role, "csrf": guest.session.csrf}


def network(address: str) -> str:
    """What failures are counted by: an address, of IPv6 its /64, which is what one person has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address


def is_literal(host: str) -> bool:
    """Whether a Host field has an address or localhost: another name may be anybody's that leads here for a moment."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ip_address(name)
    except ValueError:
        return name.lower() == "localhost"
    return True


def refused(status: int, error: str, seconds: int = 0, detail: str = "") -> web.Response:
    """A refusal by a name that the page has words for; `seconds`: when to come again."""
    headers = {**NOT_KEPT, "Retry-After": str(seconds)} if seconds else NOT_KEPT
    return web.json_response({"error": error, "seconds": seconds, "detail": detail}, status=status, headers=headers)


def _has_token(request: web.Request, session: Session) -> bool:
    given = request.headers.get("X-CSRF-Token", "")
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), session.csrf.encode())
