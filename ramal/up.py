"""`ramal up`: every service in this process, the log and the tables in one file, users from a file."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from rich.console import Console

from authsvc.config import AuthSettings
from authsvc.users.file import add_user, list_users
from cdr.config import Analytics
from console.accounts import listed
from console.config import ConsoleConfig
from console.pages import pages
from console.service import ConsoleService
from edge.config import EdgeConfig
from edge.service import EdgeService
from locator.history import history
from ramal.directory import (
    DATABASE,
    ENROLMENT_KEYS,
    KEYS,
    OPERATORS,
    USERS,
    first_passwords,
    generated_keys,
    keep_first_passwords,
    kept_keys,
    make_enrolment_keys,
    remember_settings,
    started_with,
)
from ramal.page import PageOptions, urls
from ramal.sockets import addresses, listening
from ramal.system import (
    SERVICES,
    System,
    embedded,
    is_configured,
    remembered,
    section_kinds,
    with_enrolment_keys,
    with_settings,
)
from ramal.users import forget_password, in_ldap, readable_password
from ramal.wording import command
from runtime.config import Common, Sources, masked
from runtime.database.port import Database
from runtime.errors import ConfigError, DatabaseUnavailable
from runtime.http import HttpServer, Route
from runtime.rewriting import rewriting
from runtime.service import serve
from runtime.store import check

log = logging.getLogger("ramal")

UNUSED = "Kafka or MySQL is set and not used: log and tables are one file here (`ramal edge` and its like use them)"

HTTP_PORT = 8080
SIP_PORT = 5060
LAST_PORT = 65535
DEMO_USERS = ("alice", "bob")
LOOK_SECONDS = 2.0
"""How often it is looked whether a first password has been used."""
NOT_ASKED = PageOptions()


def settings(
    directory: Path,
    sources: Sources,
    *,
    domain: str | None = None,
    sip_port: int | None = None,
    http_port: int | None = None,
    page: PageOptions = NOT_ASKED,
) -> Sources:
    """The settings of an embedded system: ours beneath the environment's and the file's, the options above.

    Nothing is written. Raises ConfigError where the users of this directory belong to a domain that is not served.
    """
    if page.encrypted and sip_port == LAST_PORT:
        raise ConfigError(f"--sip-port: SIP over TLS is at the next port, and {LAST_PORT} is the last one")
    everywhere = listening(SIP_PORT)
    chosen = ",".join(listening(sip_port)) if sip_port else None
    last = remembered(directory)
    asked = page.checked().edge(directory, listening((sip_port or SIP_PORT) + 1))
    defaults = {
        "domain": last.get("domain", Common().domain),
        "keys": kept_keys(directory / KEYS),
        "http_port": HTTP_PORT,
        "edge": {"udp": everywhere, "tcp": everywhere, "own_addresses": True, **asked},
        "authsvc": {"users_file": str(directory / USERS)},
        "console": {"operators_file": str(directory / OPERATORS)},
    }
    options = {
        "RAMAL_DOMAIN": domain,
        "RAMAL_HTTP_PORT": None if http_port is None else str(http_port),
        "RAMAL_EDGE_UDP": chosen,
        "RAMAL_EDGE_TCP": chosen,
    }
    if page != NOT_ASKED:
        options |= {
            f"RAMAL_EDGE_{key.upper()}": value if isinstance(value, str) else ",".join(value)
            for key, value in asked.items()
        }
    merged = with_settings(sources, defaults, options)
    try:
        served = merged.section(Common).served()
    except ConfigError as error:
        raise ConfigError(
            str(error).replace("RAMAL_DOMAIN:", "--domain:") if domain is not None else str(error)
        ) from error
    if "domain" in last and last["domain"].lower() not in served:
        raise ConfigError(
            f"{'--domain' if domain else 'RAMAL_DOMAIN'}: the users and records in {directory} are of {last['domain']},"
            f" not of {', '.join(served)}; leave it out, or choose another --data"
        )
    return merged


async def up(directory: Path, sources: Sources, console: Console, page: PageOptions = NOT_ASKED) -> None:
    """Serves until Ctrl-C or SIGTERM. Raises ConfigError, or OSError where an address is taken."""
    if not sources.section(Common).keys:
        sources = Sources(sources.environ, {**sources.file, "keys": generated_keys(directory / KEYS)}, sources.path)
    if sources.section(EdgeConfig, "edge").workers > 1:
        raise ConfigError("RAMAL_EDGE_WORKERS: `ramal up` is one process; several workers are for `ramal edge`")
    if is_configured(sources):
        # Whoever names servers may believe that what is acknowledged stands there.
        log.warning(UNUSED, extra={"directory": str(directory)})
    check(directory / DATABASE)
    if in_ldap(sources):
        make_enrolment_keys(directory / ENROLMENT_KEYS)
        sources = with_enrolment_keys(directory, sources)
    system = embedded(directory, sources)
    page.make_certificate(directory, system.common.domain.lower())
    left_out = set() if system.sources.section(Analytics, "analytics").enabled else {"analytics"}
    services, resources = system.services([name for name in SERVICES if name not in left_out])
    shown = pages(sources.section(ConsoleConfig, "console").checked(), system.common.domain.lower())
    for service in services:
        # The softphone is served by the edge: a browser gets its telephone where it then speaks SIP.
        if isinstance(service, EdgeService):
            service.transports.serve_pages(shown)
        elif isinstance(service, ConsoleService):
            service.server = None
    found = urls(sources.section(EdgeConfig, "edge"), directory)
    _first_users(directory, system)
    remember_settings(directory, _to_remember(directory, sources))
    async with system.tables() as tables:
        await tables.migrate()
        await _forget_used(tables, directory, system.common.domain)
    looking: list[asyncio.Task[None]] = []

    async def started(http: HttpServer) -> None:
        _welcome(console, directory, system, http, found)
        looking.append(asyncio.create_task(_look_for_use(system, directory), name="first passwords"))

    try:
        routes: list[Route] = [("GET", "/", _to_the_page(found[0]))] if found else []
        await serve(services, resources, system.common, routes=routes, started=started)
    finally:
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
    console.print(f"Stopped. Registrations are kept in {directory}.", soft_wrap=True)


def _to_remember(directory: Path, sources: Sources) -> dict[str, dict[str, Any]]:
    """The settings, secrets masked; of the users file what still leads there from elsewhere."""
    shown = {name: masked(sources.section(kind, name)) for name, kind in section_kinds().items()}
    file = shown["authsvc"]["users_file"]
    if file:
        own = file == str(directory / USERS)
        shown["authsvc"]["users_file"] = USERS if own else str(Path(file).absolute())
    return shown


def _first_users(directory: Path, system: System) -> None:
    """Makes alice and bob where no user could be known otherwise, and keeps their passwords until they are used.

    A users file that is gone is not made anew: who is registered would then be nobody.
    """
    own = directory / USERS
    elsewhere = system.sources.section(AuthSettings, "authsvc").users_file != str(own)
    if elsewhere or (not own.exists() and started_with(directory)):
        return
    if in_ldap(system.sources):
        if not own.exists():
            with rewriting(own, private=True):
                pass  # empty: it says that it has no users
        return
    if list_users(own):
        return
    passwords = {name: readable_password() for name in DEMO_USERS}
    keep_first_passwords(directory, passwords)
    for name, password in passwords.items():
        add_user(directory / USERS, name, system.common.domain.lower(), password)


async def _look_for_use(system: System, directory: Path) -> None:
    while first_passwords(directory):
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await _forget_used(system.database, directory, system.common.domain)
        except DatabaseUnavailable as error:
            log.warning("cannot look whether a first password was used", extra={"cause": str(error)})


async def _forget_used(tables: Database, directory: Path, domain: str) -> None:
    """Forgets the first passwords of those who have registered since: they know them."""
    for name in first_passwords(directory):
        if await history(tables, f"{name}@{domain.lower()}"):
            forget_password(directory, name)


def _to_the_page(url: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """For who looks for the page where the operators' listener is."""

    async def front(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": url})

    return front


def _welcome(console: Console, directory: Path, system: System, http: HttpServer, pages_at: list[str]) -> None:
    """What to type into a phone, and into a browser."""
    edge = system.sources.section(EdgeConfig, "edge")
    domain = system.common.domain.lower()
    passwords = first_passwords(directory)
    first, *others = addresses(edge.udp)
    ramal = command()
    where = f" --data {directory}"
    lines = [
        f"  Server     {first}" + "".join(f" or {other}" for other in others),
        f"  Domain     {domain} (a phone with one field for both: the server's address)",
        "  Transport  UDP or TCP",
        *(f"  User       {name:<8} password {password}" for name, password in passwords.items()),
    ]
    console.print("\n[bold]Ramal is up.[/bold] Type into a phone:\n")
    console.print("\n".join(lines), soft_wrap=True, markup=False)
    if passwords:
        console.print(
            f"\nEach password is shown until a phone has used it. A new one: {ramal} user reset NAME{where}",
            soft_wrap=True,
        )
    else:
        console.print(
            f"\nUsers: {ramal} user list{where}; one more: {ramal} user add NAME{where}"
            f"\nA password is forgotten: {ramal} user reset NAME{where}",
            soft_wrap=True,
        )
    if pages_at:
        _welcome_browsers(console, edge, pages_at)
    console.print(
        f"Who is registered: {ramal} show{where}\n"
        f"For operators: http://{http.host}:{http.port}/console/{_first_operator(system, directory)}\n"
        f"Health and metrics: http://{http.host}:{http.port}/readyz, /metrics\n"
        f"{_for_users_of_ldap(system, http)}Ctrl-C ends it; registrations stay.\n",
        soft_wrap=True,
    )


def _for_users_of_ldap(system: System, http: HttpServer) -> str:
    """Where they enrol."""
    if not in_ldap(system.sources):
        return ""
    return f"Users of LDAP whose passwords are hashes there enrol: http://{http.host}:{http.port}/enroll\n"


def _first_operator(system: System, directory: Path) -> str:
    """How to make one where there is none."""
    config = system.sources.section(ConsoleConfig, "console")
    if config.groups or listed(Path(config.operators_file)):
        return ""
    return f" (who may log in: {command()} operator add NAME --data {directory})"


def _welcome_browsers(console: Console, edge: EdgeConfig, pages_at: list[str]) -> None:
    """Where the page is, and what a browser needs beside its address."""
    lines = [f"A phone in the browser: {' or '.join(pages_at)} (open it twice, as two users)"]
    if pages_at[0].startswith("https:"):
        lines.append("A browser that does not know the certificate asks before it opens the page.")
    elif len(pages_at) > 1:
        lines.append(
            "Elsewhere than here a browser gives it no microphone without TLS: --tls CERT KEY, or --self-signed"
        )
    console.print("\n".join(lines), soft_wrap=True, markup=False)
