"""`ramal stack`: the distributed system on loopback, each service a process, under a supervisor."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
import urllib.parse
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from rich.console import Console
from rich.table import Table

from cdr.config import Analytics
from console.accounts import listed
from console.config import ConsoleConfig
from ramal import backends, operations
from ramal.backends import Server
from ramal.certificate import self_signed
from ramal.directory import OPERATORS, generated_keys, only_one
from ramal.extras import installing
from ramal.processes import StartFailed, free_port, keep_port, port_is_free, spawn
from ramal.supervisor import Part, Supervisor
from ramal.system import distributed, exported, with_settings
from ramal.warmup import FOR_PEOPLE, SETTLE, warm_up
from runtime.config import Common, MySQL, Sources
from runtime.service import wake_in_turn

S = TypeVar("S", bound=Server)
BACKENDS = ("kafka", "mysql", "ldap")
_OUTSIDE = {"kafka": "RAMAL_KAFKA_BOOTSTRAP", "mysql": "RAMAL_MYSQL_HOST", "ldap": "RAMAL_LDAP_URL"}
BACKEND_SECONDS = 5.0
_WARM = "edge-warmup"
PORTS = {"udp": 0, "tcp": 0, "tls": 1, "ws": 20, "wss": 21, "edges": 40}
"""How far each transport's port is beyond --sip-port."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What `ramal stack` was asked for."""

    run_dir: Path
    counts: Mapping[str, int]
    """Processes by service."""
    users: int
    sip_port: int
    domain: str | None
    warm_up: int
    """Registrations before the edges open."""


def run_stack(options: Options, sources: Sources, console: Console) -> None:
    """Runs until Ctrl-C or SIGTERM; raises StartFailed or ConfigError when something does not start."""
    wake_in_turn()  # the servers that we start inherit it
    with only_one(options.run_dir):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        stack = Stack(options, sources, console)
        try:
            stack.start()
            stack.supervisor.run()
        except KeyboardInterrupt:
            console.print("Ending …")
        finally:
            # Ending has deadlines of its own; a second Ctrl-C would leave it half done.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            stack.stop()
        console.print("Everything has ended.")


class Stack:
    """Which processes there are, how they find each other, and what `stack.json` says of them."""

    def __init__(self, options: Options, sources: Sources, console: Console) -> None:
        self._options = options
        self._console = console
        self._directory = options.run_dir.resolve()
        self._path = self._directory / "stack.json"
        generated_keys(self._directory / "keys")
        self._sources = with_settings(
            sources, {}, {"RAMAL_DOMAIN": options.domain, "RAMAL_KEYS_FILE": str(self._directory / "keys")}
        )
        self.domain = self._sources.section(Common).domain.lower()
        self._edges: dict[str, dict[str, str]] = {}
        """By name, `host:port` by transport; under `edges`, where other edges connect."""
        self._page = ""
        """`host:port` of the console's pages."""
        self.supervisor = Supervisor(self._say, self._write)

    def start(self) -> None:
        """Backends, schema, the services behind the edges, a warm-up through an edge of its own, then the edges.

        A phone (or a benchmark) that gets an answer gets it from a system that is warm.
        """
        self._path.unlink(missing_ok=True)
        for number in range(1, self._options.counts["edge"] + 1):
            host = f"127.0.0.{number}"
            ports = {transport: self._options.sip_port + beyond for transport, beyond in PORTS.items()}
            for port in ports.values():
                if not port_is_free(host, port):
                    raise StartFailed(f"{host}:{port} is taken; choose another --sip-port")
                keep_port(port)
            self._edges[f"edge-{number}"] = {transport: f"{host}:{port}" for transport, port in ports.items()}
        hosts = [f"127.0.0.{number}" for number in range(1, self._options.counts["edge"] + 1)]
        certificate, key = self_signed(self._directory, self.domain, hosts)
        self._configure({"RAMAL_EDGE_CERTIFICATE": str(certificate), "RAMAL_EDGE_PRIVATE_KEY": str(key)})
        self._start_backends()
        for service in ("authsvc", "registrar", "locator", "cdr"):
            for number in range(1, self._options.counts[service] + 1):
                self._start_service(service, f"{service}-{number}")
        self._warm_up()
        for name, addresses in self._edges.items():
            self._start_service("edge", name, _listening(addresses))
        self._page = f"127.0.0.1:{free_port()}"
        websocket = f"ws://{self._edges['edge-1']['ws']}/sip"
        page_port = self._page.rpartition(":")[2]
        self._configure({"RAMAL_CONSOLE_WEBSOCKET": websocket, "RAMAL_CONSOLE_PORT": page_port})
        self.supervisor.wait_ready()
        self._start_analytics()
        self._start_console()
        self._write()
        self._write_environment()
        self._tell()

    def stop(self) -> None:
        """Ends edges, then what answers them, then what all stand on; within 25 s whatever hangs."""
        names = list(self.supervisor.parts)
        edges = [name for name in names if name.startswith("edge")]
        others = [name for name in names if name not in edges and name not in BACKENDS]
        self.supervisor.stop([edges, others, BACKENDS])
        self._path.unlink(missing_ok=True)

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)

    # --- the processes ------------------------------------------------------------

    def _start_backends(self) -> None:
        for name, program in zip(BACKENDS, ("Kafka", "MariaDB", "OpenLDAP"), strict=True):
            if not self._outside(name):
                self._say(f"Starting {program} from {backends.origin(name)} …")
        if not self._outside("kafka"):
            broker = self._backend("kafka", lambda: backends.start_kafka(self._directory / "kafka"))
            self._configure({"RAMAL_KAFKA_BOOTSTRAP": broker.bootstrap})
        if not self._outside("mysql"):
            tables = self._backend("mysql", lambda: backends.start_mysql(self._directory / "mysql"))
            self._configure(
                {
                    "RAMAL_MYSQL_HOST": tables.host,
                    "RAMAL_MYSQL_PORT": str(tables.port),
                    "RAMAL_MYSQL_USER": tables.user,
                    "RAMAL_MYSQL_PASSWORD_FILE": self._secret("mysql.password", tables.password),
                    "RAMAL_MYSQL_DATABASE": tables.database,
                }
            )
        if not self._outside("ldap"):
            users, domain = self._options.users, self.domain
            directory = self._backend(
                "ldap", lambda: backends.start_ldap(self._directory / "ldap", users, domain=domain)
            )
            self._configure(
                {
                    "RAMAL_LDAP_URL": directory.url,
                    "RAMAL_LDAP_BASE": directory.base,
                    "RAMAL_LDAP_BIND_DN": directory.bind_dn,
                    "RAMAL_LDAP_BIND_PASSWORD_FILE": self._secret("ldap.password", directory.bind_password),
                    "RAMAL_LDAP_INSECURE": "true",  # loopback: nobody else hears it
                }
            )
        system = distributed(self._sources)
        _, wrong = uvloop.run(operations.make_topics(system))
        if wrong:
            raise StartFailed("; ".join(wrong))
        uvloop.run(operations.migrate(system))

    def _outside(self, name: str) -> bool:
        """Whether the environment names a server that is not ours to start."""
        return _OUTSIDE[name] in self._sources.environ

    def _backend(self, name: str, start: Callable[[], S]) -> S:
        server = start()
        self.supervisor.add(Part(name, lambda: start().child, server.child, stop_seconds=BACKEND_SECONDS))
        (self._directory / f"{name}.pid").write_text(f"{server.pid}\n")
        return server

    def _configure(self, variables: Mapping[str, str]) -> None:
        self._sources = with_settings(self._sources, {}, variables)

    def _secret(self, name: str, text: str) -> str:
        """The path of a file that only we may read: a process's environment is easier to see than that."""
        path = self._directory / name
        path.touch(mode=0o600)
        path.write_text(text)
        return str(path)

    def _start_service(
        self, service: str, name: str, settings: Mapping[str, str] | None = None, http: str = ""
    ) -> None:
        http = http or f"127.0.0.1:{free_port()}"
        environ = {**self._sources.environ, "RAMAL_NAME": name, "RAMAL_HTTP_PORT": http.rpartition(":")[2]}
        environ |= settings or {}
        command = [sys.executable, "-m", "ramal", service]
        log = self._directory / "logs" / f"{name}.log"
        self.supervisor.add(
            Part(name, lambda: spawn(name, command, log, environ), spawn(name, command, log, environ), http)
        )

    def _start_analytics(self) -> None:
        """Last, and not waited for: nothing needs them."""
        count = self._options.counts["analytics"]
        if not count or not self._sources.section(Analytics, "analytics").enabled:
            return
        if find_spec("faust") is None:
            self._say(f"No statistics: Faust is not installed ({installing('analytics')}).")
            return
        for number in range(1, count + 1):
            name = f"analytics-{number}"
            self._start_service("analytics", name, {"RAMAL_ANALYTICS_DIRECTORY": str(self._directory / name)})

    def _start_console(self) -> None:
        """When it is known where all others tell how they are."""
        http = f"127.0.0.1:{free_port()}"
        beside = {name: part.http for name, part in self.supervisor.parts.items() if part.http} | {"console": http}
        defaults = {
            "RAMAL_CONSOLE_PROCESSES": ",".join(f"{name}=http://{address}" for name, address in beside.items()),
            "RAMAL_CONSOLE_OPERATORS_FILE": str(self._directory / OPERATORS),
        }
        self._configure({name: text for name, text in defaults.items() if name not in self._sources.environ})
        self._start_service("console", "console", http=http)
        self.supervisor.wait_ready("console")

    def _warm_up(self) -> None:
        self._say("Starting the services, and warming the JVM up …")
        host, port = "127.0.0.1", free_port()
        self._start_service("edge", _WARM, _listening({"udp": f"{host}:{port}", "tcp": f"{host}:{port}"}))
        self.supervisor.wait_ready()
        system = distributed(self._sources)

        async def register() -> None:
            async with system.tables() as tables:
                await warm_up(tables, (host, port), self.domain, self._options.warm_up)
                if self._options.warm_up > FOR_PEOPLE:
                    await asyncio.sleep(SETTLE)

        try:
            uvloop.run(register())
        except TimeoutError as error:
            self._say(f"The warm-up was cut short: {error}")
        self.supervisor.end(_WARM)

    # --- what people and programs are told -------------------------------------------

    def _description(self) -> dict[str, Any]:
        parts = self.supervisor.parts
        mysql = self._sources.section(MySQL, "mysql")
        return {
            "domain": self.domain,
            "page": f"http://{self._page}/",
            "console": f"http://{parts['console'].http}/console/",
            "edges": [
                {"name": name, "pid": parts[name].child.pid, "http": parts[name].http}
                | {transport: address for transport, address in addresses.items() if transport != "edges"}
                for name, addresses in self._edges.items()
            ],
            "processes": {
                name: {"pid": part.child.pid, "log": str(part.child.log), "http": part.http or None}
                for name, part in parts.items()
            },
            "mysql": {
                "host": mysql.host,
                "port": mysql.port,
                "user": mysql.user,
                "password": str(mysql.password),
                "database": mysql.database,
            },
            "kafka": self._sources.environ["RAMAL_KAFKA_BOOTSTRAP"],
            "ldap": self._sources.environ["RAMAL_LDAP_URL"],
        }

    def _write(self) -> None:
        """`stack.json` as it is now; a reader sees the old one or the new one."""
        partial = self._path.with_suffix(".new")
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(self._description(), indent=2) + "\n")
        partial.rename(self._path)
        for name in BACKENDS:
            if part := self.supervisor.parts.get(name):
                (self._directory / f"{name}.pid").write_text(f"{part.child.pid}\n")

    def _write_environment(self) -> None:
        """`env`: what a shell needs for `ramal show` and the like to ask this system, whatever that shell has set."""
        self._secret("env", exported(self._sources))

    def _tell(self) -> None:
        described = self._description()
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("Process", "Address", "HTTP", "Log"):
            table.add_column(column, overflow="fold")
        backend = {
            "kafka": described["kafka"],
            "mysql": f"{described['mysql']['host']}:{described['mysql']['port']}",
            "ldap": urllib.parse.urlsplit(described["ldap"]).netloc,
        }
        for name, process in described["processes"].items():
            address = backend.get(name, "")
            if name in self._edges:
                host, _, port = self._edges[name]["udp"].rpartition(":")
                others = (f"{t.upper()} {self._edges[name][t].rpartition(':')[2]}" for t in ("tls", "ws", "wss"))
                address = f"{host}:{port} UDP, TCP; {', '.join(others)}"
            log = Path(process["log"])
            with contextlib.suppress(ValueError):
                log = log.relative_to(Path.cwd())
            table.add_row(name, address, process["http"] or "", str(log))
        self._console.print(table)
        if "ldap" in self.supervisor.parts:
            last = backends.user_name(self._options.users - 1)
            self._say(f"\nUsers {backends.user_name(0)} to {last} of {self.domain}, password secret-u00000, …")
        self._say(f"A phone in the browser: {described['page']}")
        environment = os.path.relpath(self._directory / "env")
        self._say(f"For operators: {described['console']}{self._first_operator(environment)}")
        self._say(f"Ask it: . {environment}; ramal show")
        self._say(f"All is ready; {os.path.relpath(self._path)} describes it. Ctrl-C ends it.")

    def _first_operator(self, environment: str) -> str:
        """How to make one where there is none."""
        config = self._sources.section(ConsoleConfig, "console")
        if config.groups or listed(Path(config.operators_file)):
            return ""
        return f" (who may log in: . {environment}; ramal operator add NAME)"


def _listening(addresses: Mapping[str, str]) -> dict[str, str]:
    """An edge's settings: where it listens, by transport."""
    return {f"RAMAL_EDGE_{transport.upper()}": address for transport, address in addresses.items()}
