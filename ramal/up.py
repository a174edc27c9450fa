"""`ramal up`: every service in this process, the log and the tables in one file, users from a file."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from authsvc.config import LdapSettings
from authsvc.users.file import add_user, list_users
from cdr.config import Analytics
from edge.config import EdgeConfig, endpoint
from edge.core.flow import host_port
from locator.history import history
from ramal.directory import KEYS, USERS, first_passwords, generated_keys, keep_first_passwords, remember_settings
from ramal.processes import StartFailed
from ramal.system import SERVICES, System, embedded, remembered, sections, with_settings
from ramal.users import forget_password, readable_password
from ramal.wording import command
from runtime.config import Common, Sources, masked
from runtime.database.port import Database
from runtime.errors import ConfigError, DatabaseUnavailable
from runtime.http import HttpServer
from runtime.service import serve

log = logging.getLogger("ramal")

HTTP_PORT = 8080
SIP_PORT = 5060
WS_PORT = 8081
DEMO_USERS = ("alice", "bob")
LOOK_SECONDS = 2.0
"""How often it is looked whether a first password has been used."""
OPTIONS = {"udp": ", --sip-port", "tcp": ", --sip-port", "ws": ", --ws-port", "http": ", --http-port"}
"""The option that chooses the port, by what listens there."""


def settings(
    directory: Path,
    sources: Sources,
    *,
    domain: str | None = None,
    sip_port: int | None = None,
    http_port: int | None = None,
    ws_port: int | None = None,
) -> Sources:
    """The settings of an embedded system: ours beneath the environment's and the file's, the options above.

    Nothing is written. Raises ConfigError where the users of this directory belong to a domain that is not served.
    """
    everywhere = listening(SIP_PORT)
    chosen = ",".join(listening(sip_port)) if sip_port else None
    http_host = sources.section(Common).http_host
    last = remembered(directory)
    defaults = {
        "domain": last.get("domain", Common().domain),
        "keys": (directory / KEYS).read_text().strip() if (directory / KEYS).exists() else "",
        "http_port": HTTP_PORT,
        # The WebSocket is where the page is: both on loopback, where browsers allow a microphone without TLS.
        "edge": {"udp": everywhere, "tcp": everywhere, "ws": [host_port(http_host, WS_PORT)], "own_addresses": True},
        "console": {"websocket_port": ws_port or WS_PORT},
        "authsvc": {"users_file": str(directory / USERS)},
    }
    options = {
        "RAMAL_DOMAIN": domain,
        "RAMAL_HTTP_PORT": None if http_port is None else str(http_port),
        "RAMAL_EDGE_UDP": chosen,
        "RAMAL_EDGE_TCP": chosen,
        "RAMAL_EDGE_WS": host_port(http_host, ws_port) if ws_port else None,
    }
    merged = with_settings(sources, defaults, options)
    served = merged.section(Common).served()
    if "domain" in last and last["domain"].lower() not in served:
        raise ConfigError(
            f"{'--domain' if domain else 'RAMAL_DOMAIN'}: the users and records in {directory} are of {last['domain']},"
            f" not of {', '.join(served)}; leave it out, or choose another --data"
        )
    return merged


def listening(port: int) -> list[str]:
    """All addresses of this host, `host:port` each; IPv6 where the host has it."""
    addresses = [f"0.0.0.0:{port}"]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        addresses.append(f"[::]:{port}")
    return addresses


def check_ports(edge: EdgeConfig, common: Common) -> None:
    """Raises StartFailed that names the first address that cannot be listened on, its transport and its setting."""
    wanted = [
        (transport, text, f"RAMAL_EDGE_{transport.upper()}")
        for transport in ("udp", "tcp", "tls", "ws", "wss")
        for text in getattr(edge, transport)
    ]
    wanted.append(("http", host_port(common.http_host, common.http_port), "RAMAL_HTTP_PORT"))
    for transport, text, setting in wanted:
        host, port = endpoint(text, setting)
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((host, port))
                if kind == socket.SOCK_STREAM:
                    probe.listen(1)
        except OSError as error:
            raise StartFailed(
                f"{transport} {text}: {error.strerror} ({setting}{OPTIONS.get(transport, '')} chooses another)"
            ) from error


async def up(directory: Path, sources: Sources, console: Console) -> None:
    """Serves until Ctrl-C or SIGTERM. Raises ConfigError, or OSError where an address is taken."""
    if not sources.section(Common).keys:
        sources = Sources(sources.environ, {**sources.file, "keys": generated_keys(directory / KEYS)}, sources.path)
    system = embedded(directory, sources)
    reckons = system.sources.section(Analytics, "analytics").enabled
    services, resources = system.services([name for name in SERVICES if reckons or name != "analytics"])
    _first_users(directory, system)
    remember_settings(directory, {name: masked(section) for name, section in sections(sources).items()})
    async with system.tables() as tables:
        await tables.migrate()
        await _forget_used(tables, directory, system.common.domain)
    looking: list[asyncio.Task[None]] = []

    async def started(http: HttpServer) -> None:
        _welcome(console, directory, system, http)
        looking.append(asyncio.create_task(_look_for_use(system, directory), name="first passwords"))

    try:
        await serve(services, resources, system.common, started=started)
    finally:
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
    console.print(f"Stopped. Registrations are kept in {directory}.", soft_wrap=True)


def _first_users(directory: Path, system: System) -> None:
    """Makes alice and bob where no user could be known otherwise, and keeps their passwords until they are used."""
    if system.sources.section(LdapSettings, "ldap").url or list_users(directory / USERS):
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


def _welcome(console: Console, directory: Path, system: System, http: HttpServer) -> None:
    """What to type into a phone."""
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
        *(f"  User       {name}   password {password}" for name, password in passwords.items()),
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
    console.print(
        f"A phone in the browser: http://{http.host}:{http.port}/ (open it twice, as two users)\n"
        f"Who is registered: {ramal} show{where}\n"
        f"Health and metrics: http://{http.host}:{http.port}/readyz, /metrics\n"
        "Ctrl-C ends it; registrations stay.\n",
        soft_wrap=True,
    )


def addresses(bound: Sequence[str]) -> list[str]:
    """The `host:port` under which phones reach these sockets: `0.0.0.0` is this host's own address."""
    reachable = []
    for text in bound:
        host, port = endpoint(text, "RAMAL_EDGE_UDP")
        if host == "0.0.0.0":  # noqa: S104  # compared with, not bound
            host = _own_address(socket.AF_INET, "192.0.2.1") or "127.0.0.1"
        elif host == "::":
            host = _own_address(socket.AF_INET6, "2001:db8::1")
        if host not in ("", "::"):
            reachable.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return reachable


def _own_address(family: socket.AddressFamily, far: str) -> str:
    """The source address towards the network; empty where there is no route. Nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""
