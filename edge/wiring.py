"""What an edge asks that is no socket for phones: other edges, the tables, DNS, rtpengine. Wires each to the core."""

import asyncio
import contextlib
import itertools
import logging
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge.config import EdgeConfig, endpoint
from edge.core.actions import Location, NextHop, Send
from edge.core.addresses import parsed
from edge.core.deny import Denied
from edge.core.dispatch import EdgeCore
from edge.core.flow import WILDCARDS
from edge.core.gateways.numbers import rules_of
from edge.core.gateways.routes import GatewaysConfig
from edge.core.proxy.failures import SILENT
from edge.mesh.mesh import Mesh
from edge.outside.lookups import Locations
from edge.outside.resolver import Resolver
from edge.outside.rtpengine import Rtpengine
from edge.topics.neighbours import Neighbours
from edge.transport.layer import Outside, Transports
from events.leases import EdgeLease
from runtime.config import Common
from runtime.database.port import Database
from runtime.log.port import Log
from sipcore.errors import ParseError
from sipcore.uri import parse_uri

log = logging.getLogger("ramal.edge")

LOOPBACK = ("127.0.0.1", "::1")


class Surroundings:
    """The other edges, locations, names and media relays of one edge."""

    def __init__(
        self,
        config: EdgeConfig,
        common: Common,
        denied: Denied,
        core: EdgeCore,
        transports: Transports,
        log: Log,
        database: Database,
        keys: Mapping[str, bytes],
        life: tuple[str, str],
    ) -> None:
        """`life`: this edge's name and boot. Raises ConfigError."""
        edge, boot = life
        rules = rules_of(common.served())
        self._config = config
        self._core, self._transports = core, transports
        self.peers = Mesh(edge, boot, keys, core, self._deliver, transports.flush)
        self._neighbours = Neighbours(log, edge, boot, self._learn)
        self._locations = Locations(database, config.grace_seconds, self._located, rules)
        self._resolver = Resolver(self._resolved, denied, config.nameservers, families(bound_hosts(config)))
        self._rtpengine = Rtpengine(config.rtpengine, self._relayed)
        self._service_name = config.service_name or common.domain
        self._reading: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        transports.outside = Outside(
            self.peers.send,
            self.peers.forward,
            self.peers.seek,
            self.peers.failed,
            self._locations.look_up,
            self._resolver.resolve,
            self._rtpengine.media,
        )

    async def start(self) -> None:
        """Listens for other edges and begins to learn who lives; raises OSError when the address is taken."""
        address = endpoint(self._config.edges, "RAMAL_EDGE_EDGES") if self._config.edges else None
        await self.peers.start(address)
        await self._rtpengine.start()
        self._checking = asyncio.create_task(self._check_service_name(), name="service name")
        if address is not None:
            self._reading = asyncio.create_task(self._neighbours.run(), name="edge leases")

    async def stop(self) -> None:
        """Ends it all; what was written still leaves."""
        for task in filter(None, (self._reading, self._checking)):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.peers.stop()
        await self._locations.stop()
        await self._resolver.stop()
        await self._rtpengine.stop()

    async def _check_service_name(self) -> None:
        """Says when the host in our Path leads nowhere: a proxy that reads `location` could not follow it."""
        if not await self._resolver.knows(self._service_name):
            level = logging.WARNING if self._config.peers else logging.INFO
            told = {"service_name": self._service_name, "setting": "RAMAL_EDGE_SERVICE_NAME"}
            log.log(level, "the host in Path does not resolve: other proxies cannot follow it", extra=told)

    @property
    def replaced(self) -> bool:
        """Whether another edge runs under our name."""
        return bool(self._neighbours.replaced_by)

    def status(self) -> dict[str, str]:
        """Why the other edges are not known, if they are not."""
        if self._reading is None:
            return {}
        away = self._neighbours.away if self._neighbours.ready else "the leases of the other edges are not read yet"
        return {"leases": away}

    def address(self) -> dict[str, str]:
        """Under `edges`, where other edges connect; nothing for an edge by itself."""
        if not self._config.edges:
            return {}
        host, port = self.peers.address
        return {"edges": self._config.edges_advertised or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")}

    def _learn(self, leases: Sequence[EdgeLease], ended: Sequence[tuple[str, str]]) -> None:
        """What the log says of other edges (see `edge.topics.neighbours`)."""
        heard = [(lease.edge, [_endpoint(text) for text in lease.hosts]) for lease in leases]
        self._core.us.others(heard, gone=[edge for edge, _ in ended])
        self.peers.learn(leases, ended)

    # --- what comes back ------------------------------------------------------------------------------------------

    def _deliver(self, send: Send) -> None:
        """Another edge sends by a flow of ours."""
        if send.data.startswith(b"INVITE "):
            if self._core.track_invite(send.data, send.flow, time.monotonic(), send.id) and send.id:
                self._transports.unsent(send.id, SILENT)
        elif self._core.drain.begun:
            self._core.drain.track_response(send.data, send.flow)
        self._transports.deliver(send)

    def _located(self, answers: Sequence[tuple[int, Location]]) -> None:
        now = time.monotonic()
        for number, found in answers:
            self._transports.tell(self._core.located, number, found, now)
        self._transports.flush()

    def _resolved(self, number: int, hops: list[NextHop]) -> None:
        self._transports.tell(self._core.resolved, number, hops, time.monotonic())
        self._transports.flush()

    def _relayed(self, number: int, reply: dict[str, object] | None) -> None:
        self._transports.tell(self._core.media_reply, number, reply, time.monotonic())
        self._transports.flush()


def bound_hosts(config: EdgeConfig) -> list[str]:
    """The addresses that the edge binds; raises ConfigError."""
    texts = (*config.udp, *config.tcp, *config.tls, *config.ws, *config.wss)
    return [endpoint(text, "RAMAL_EDGE_UDP")[0] for text in texts]


def denied_by(config: EdgeConfig, gateways: GatewaysConfig) -> Denied:
    """Which addresses nothing is sent to; raises ConfigError."""
    loopback = LOOPBACK if config.own_addresses else ()
    return Denied(config.deny, (*bound_hosts(config), *loopback), allowed(config, gateways))


def heard_at(
    bound: Mapping[str, Sequence[tuple[str, int]]], advertised: Mapping[str, str], addresses: Sequence[str]
) -> list[tuple[str, int]]:
    """By which hosts and ports (0: any) an edge is reached, given what it has bound by transport, the names that
    phones know it by, and the addresses of its host, of which it hears at all where it has bound a wildcard."""
    found = {}
    for transport, sockets in bound.items():
        for host, port in sockets:
            hosts = [a for a in addresses if (":" in a) == (":" in host)] if host in WILDCARDS else [host]
            found.update(dict.fromkeys((each, port) for each in hosts))
        if transport in advertised:
            found[_endpoint(advertised[transport])] = None
    return list(found)


def _endpoint(text: str) -> tuple[str, int]:
    """Host and port of `host:port`; 0 for `host`."""
    host, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and (":" not in host or host.endswith("]")):
        return host.strip("[]"), int(port)
    return text.strip("[]"), 0


def allowed(config: EdgeConfig, gateways: GatewaysConfig) -> list[str]:
    """Addresses and networks that may be sent to whatever the deny list says: peers and numeric gateways."""
    hosts = []
    for gateway in gateways.gateways.values():
        with contextlib.suppress(ParseError):  # `Gateways` refuses it by name
            hosts.append(parse_uri(gateway.uri).host)
    return [*config.peers, *(host for host in hosts if parsed(host) is not None)]


def families(bound: Sequence[str]) -> tuple[int, ...]:
    """The address families that the edge sends by, IPv4 before IPv6."""
    found = sorted({6 if ":" in host else 4 for host in bound})
    return tuple(found) or (4,)


def outgoing_address(*, ipv6: bool) -> str:
    """The address from which this host reaches the world, or its wildcard where it has no way there; sends nothing."""
    family, far = (socket.AF_INET6, "2001:db8::1") if ipv6 else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((far, 9))
        except OSError:
            return "::" if ipv6 else "0.0.0.0"  # noqa: S104  # not bound
        host: str = asking.getsockname()[0]
        return host


def host_addresses() -> list[str]:
    """Every address of this host (Linux), loopback included."""
    found = []
    trie = Path("/proc/net/fib_trie")
    if trie.exists():
        lines = trie.read_text().splitlines()
        local = [before for before, line in itertools.pairwise(lines) if "/32 host LOCAL" in line]
        found += [line.split()[-1] for line in local]
    six = Path("/proc/net/if_inet6")
    if six.exists():
        for line in six.read_text().splitlines():
            octets = line.split()[0]
            found.append(":".join(octets[at : at + 4] for at in range(0, 32, 4)))
    return sorted(set(found))
