"""`ramal up`: every service in this process, the log and the tables in one file, users from a file."""

import contextlib
import fcntl
import secrets
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from authsvc.config import LdapSettings
from authsvc.users_file import add_user, list_users
from edge.config import EdgeConfig, endpoint
from edge.flow import host_port
from ramal.processes import StartFailed
from ramal.system import SERVICES, System, embedded, generated_keys, with_settings
from runtime.config import Common, Sources
from runtime.http import HttpServer
from runtime.service import serve

HTTP_PORT = 8080
SIP_PORT = 5060
WS_PORT = 8081
USERS_FILE = "users.htdigest"
DEMO_USERS = ("alice", "bob")


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Holds the directory for this process; raises StartFailed where another has it."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartFailed(f"{directory}: another Ramal runs there; end it, or choose another directory") from None
        yield


def settings(
    directory: Path,
    sources: Sources,
    *,
    domain: str | None,
    sip_port: int | None,
    http_port: int | None,
    ws_port: int | None,
) -> Sources:
    """The settings of an embedded system: ours beneath the environment's and the file's, the options above."""
    everywhere = listening(SIP_PORT)
    chosen = ",".join(listening(sip_port)) if sip_port else None
    http_host = sources.section(Common).http_host
    defaults = {
        "keys": generated_keys(directory / "keys"),
        "http_port": HTTP_PORT,
        "log_level": "WARNING",
        # The WebSocket is where the page is: both on loopback, where browsers allow a microphone without TLS.
        "edge": {"udp": everywhere, "tcp": everywhere, "ws": [host_port(http_host, WS_PORT)], "own_addresses": True},
        "console": {"websocket_port": ws_port or WS_PORT},
        "authsvc": {"users_file": str(directory / USERS_FILE)},
    }
    options = {
        "RAMAL_DOMAIN": domain,
        "RAMAL_HTTP_PORT": None if http_port is None else str(http_port),
        "RAMAL_EDGE_UDP": chosen,
        "RAMAL_EDGE_TCP": chosen,
        "RAMAL_EDGE_WS": host_port(http_host, ws_port) if ws_port else None,
    }
    return with_settings(sources, defaults, options)


def listening(port: int) -> list[str]:
    """All addresses of this host, `host:port` each; IPv6 where the host has it."""
    addresses = [f"0.0.0.0:{port}"]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        addresses.append(f"[::]:{port}")
    return addresses


async def up(directory: Path, sources: Sources, console: Console) -> None:
    """Serves until Ctrl-C or SIGTERM. Raises ConfigError, or OSError where an address is taken."""
    system = embedded(directory, sources)
    services, resources = system.services(SERVICES)
    fresh = _first_users(directory / USERS_FILE, system)
    async with system.tables() as tables:
        await tables.migrate()

    async def started(http: HttpServer) -> None:
        _welcome(console, directory, system, http, fresh)

    await serve(services, resources, system.common, started=started)
    console.print(f"Stopped. Registrations are kept in {directory}.", soft_wrap=True)


def _first_users(path: Path, system: System) -> dict[str, str]:
    """Makes alice and bob where no user could be known otherwise; their passwords by name."""
    if system.sources.section(LdapSettings, "ldap").url or list_users(path):
        return {}
    passwords = {name: readable_password() for name in DEMO_USERS}
    for name, password in passwords.items():
        add_user(path, name, system.common.domain.lower(), password)
    return passwords


def readable_password() -> str:
    """Four pronounceable words of two syllables, such as `tobu-reka-miso-dalu`: 49 bits, and no doubtful letters."""
    return "-".join(
        "".join(secrets.choice("bdfghkmnprstvz") + secrets.choice("aeiou") for _ in range(2)) for _ in range(4)
    )


def _welcome(console: Console, directory: Path, system: System, http: HttpServer, fresh: dict[str, str]) -> None:
    """What to type into a phone."""
    edge = system.sources.section(EdgeConfig, "edge")
    domain = system.common.domain.lower()
    first, *others = addresses(edge.udp)
    lines = [
        f"  Server     {first}" + "".join(f" or {other}" for other in others),
        f"  Domain     {domain} (a phone with one field for both: the server's address)",
        "  Transport  UDP or TCP",
        *(f"  User       {name}   password {password}" for name, password in fresh.items()),
    ]
    console.print("\n[bold]Ramal is up.[/bold] Type into a phone:\n")
    console.print("\n".join(lines), soft_wrap=True, markup=False)
    if fresh:
        console.print("\nThese passwords are shown only now: only their digests (HA1) are stored.", soft_wrap=True)
    else:
        console.print(
            f"\nUsers: ramal user list --data {directory}; one more: ramal user add NAME --data {directory}",
            soft_wrap=True,
        )
    console.print(
        f"A phone in the browser: http://{http.host}:{http.port}/ (open it twice, as two users)\n"
        f"Who is registered: ramal show --data {directory}\n"
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
