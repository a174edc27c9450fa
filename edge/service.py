"""Wiring of the edge: settings, core, sockets and topics."""

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Sequence

from prometheus_client import Gauge

from edge import metrics
from edge.config import EdgeConfig, core_settings, edge_name, endpoint
from edge.core.addresses import networks
from edge.core.clock import LogClock
from edge.core.dispatch import EdgeCore
from edge.core.flow import TRANSPORTS, WILDCARDS, host_port
from edge.core.gateways.numbers import rules_of
from edge.core.gateways.routes import Gateways, GatewaysConfig
from edge.core.tokens.path import FlowTokens
from edge.outside.location import location_page, time_of
from edge.topics.call_spool import CallSpool
from edge.topics.commands import Publisher
from edge.topics.lease import Lease
from edge.topics.replies import Replies
from edge.transport.connections import StreamLimits
from edge.transport.layer import StreamSettings, Transports
from edge.transport.tls import Certificates
from edge.wiring import Surroundings, denied_by, heard_at, host_addresses, outgoing_address
from events.leases import EdgeLease
from runtime.config import Common, Sources, hmac_keys
from runtime.database.port import Database
from runtime.errors import ConfigError, DatabaseUnavailable, LogUnavailable
from runtime.http import Route
from runtime.inherited import Together
from runtime.log.port import Log

log = logging.getLogger("ramal.edge")

HOSTS = 100
"""Addresses and ports that a lease tells."""
RETRY = 0.3
"""Seconds between two attempts to become ready."""
DRAIN_LOOK = 0.1
"""Seconds between two looks at what still rings."""
QUIET = 0.5
"""After the last answer, its ACK or another copy of its request may come."""

TRANSACTIONS = Gauge("ramal_edge_transactions", "Transactions of calls, with those that only absorb repetitions.")
CONNECTIONS = Gauge("ramal_edge_connections", "Open connections of phones, on TCP, TLS, WS and WSS.")
RINGING = Gauge("ramal_edge_ringing_calls", "Calls that have no final response yet.")
NEIGHBOURS = Gauge("ramal_edge_neighbours", "Other edges that are known to live.")
DATABASE_CLOCK = Gauge("ramal_edge_database_clock_seconds", "How far the database's clock is ahead of the log's.")

CLOCKS_APART = 2.0
"""Seconds between the clocks of database and log from which on people are told; the database's says whole ones."""


class EdgeService:
    """One edge in one process (see `runtime.service.Service`)."""

    name = "edge"

    def __init__(
        self, config: EdgeConfig, common: Common, gateways: GatewaysConfig, log: Log, database: Database
    ) -> None:
        self._config = config
        self._log = log
        self._database = database
        self.edge = edge_name(config, common)
        self.boot = secrets.token_hex(5)
        self._endpoints = {
            transport: [endpoint(text, f"RAMAL_EDGE_{transport.upper()}") for text in texts]
            for transport, texts in zip(
                TRANSPORTS, (config.udp, config.tcp, config.tls, config.ws, config.wss), strict=True
            )
        }
        keys = hmac_keys(common.keys)
        self._clock = LogClock(time.monotonic(), time.time())
        service_name = config.service_name or common.domain.lower()
        tokens = FlowTokens(keys, self.edge, self.boot, service_name)
        denied = denied_by(config, gateways)
        settings = core_settings(config, common, self._own_hosts(), host_addresses(), denied.refuses)
        routes = Gateways(gateways, rules_of(common.served()))
        self.core = EdgeCore(settings, keys, self.edge, self.boot, tokens, self._clock, os.urandom, routes)
        self._publisher = Publisher(log, self._clock, self.core.awaits, self._unpublished, config.gather_seconds)
        self._call_spool = CallSpool(log)
        streams = stream_settings(config)
        self._certificates = streams.certificates
        self.transports = Transports(
            self.core,
            self._publisher.publish,
            streams,
            edge=self.edge,
            boot=self.boot,
            tell=self._call_spool.put,
        )
        life = (self.edge, self.boot)
        self._surroundings = Surroundings(config, common, denied, self.core, self.transports, log, database, keys, life)
        self._replies = Replies(log, self.edge, self.boot, self.transports.replied)
        TRANSACTIONS.set_function(lambda: self.core.calls.transactions)
        CONNECTIONS.set_function(lambda: self.transports.connections)
        RINGING.set_function(lambda: len(self.core.proxy.ringing))
        metrics.watch(routes)
        NEIGHBOURS.set_function(lambda: len(self.core.reach.neighbours))
        self.routes: Sequence[Route] = (("GET", "/location/{aor:.+}", location_page(database, config.grace_seconds)),)
        self._lease: Lease | None = None
        self._reading: asyncio.Task[None] | None = None
        self._staying: asyncio.Task[None] | None = None
        self._away: dict[str, str] = {"log": "not heard yet", "database": "not heard yet"}
        self._ahead = 0.0
        """How far the database's clock is ahead of the log's, in seconds."""
        self._brokers_apart = False
        """Whether it was said that they are."""
        self._together = Together()
        self._begun = False
        """Whether all that it needs has been there once: from then on it can speak SIP, 503 if need be."""

    async def start(self) -> None:
        """Opens the sockets (OSError if an address is taken); the log and the database may still be away.

        Until the log answers, challenges and OPTIONS are answered, and REGISTERs with credentials get 503.
        """
        await self.transports.start(self._endpoints)
        await self._surroundings.start()
        self.core.reach.addresses = self._reached_at()
        heard = self._heard_at()
        self.core.us.hears_at(heard)
        lease = EdgeLease(
            self.edge,
            self.boot,
            self._config.lease_seconds,
            self.addresses() | self._surroundings.address(),
            hosts=tuple(host_port(*each) if each[1] else each[0] for each in heard[:HOSTS]),
        )
        self._lease = Lease(self._log, self._clock, lease)
        self._reading = asyncio.create_task(self._replies.run(), name="edge replies")
        self._staying = asyncio.create_task(self._stay_ready(), name="edge lease")

    async def drain(self) -> None:
        """Takes no new connections, gives calls that begin to other edges, and waits until what rings is answered.

        At most `drain_seconds`. REGISTERs are answered as ever: a phone's flow leads here as long as we are here. Of
        several workers none ends before the others have drained: what rings at one may be answered to another.
        """
        core, until = self.core, time.monotonic() + self._config.drain_seconds
        core.drain.begun = True
        await self.transports.refuse_new()
        if core.busy:
            log.info("draining", extra={"waiting": core.busy, "at_most": self._config.drain_seconds})
            quiet = time.monotonic()
            while (now := time.monotonic()) < until and now - quiet < QUIET:
                await asyncio.sleep(DRAIN_LOOK)
                if core.busy:
                    quiet = time.monotonic()
            if core.busy:
                log.warning("what still rings is left to others", extra={"waiting": core.busy})
        self._together.done()
        while self._together.waits and time.monotonic() < until:  # noqa: ASYNC110  # others are processes
            await asyncio.sleep(DRAIN_LOOK)

    async def stop(self, deadline: float) -> None:
        """Takes nothing new, answers what waits for the log, ends the lease and closes all.

        A datagram that comes now is not refused: its copy goes to whoever is here then.
        """
        until = time.monotonic() + deadline
        await _cancel(self._staying)
        self.core.serving = False
        self.transports.deafen()
        await self.transports.refuse_new()
        answers = min(until - 1.0, time.monotonic() + self._config.reply_seconds)
        while len(self.core.registers.pending) and time.monotonic() < answers:  # noqa: ASYNC110  # the core is pure and has no event
            await asyncio.sleep(0.05)
        await _cancel(self._reading)
        if self._lease and self._clock.learnt:
            with contextlib.suppress(LogUnavailable, TimeoutError):  # the lease then ends by its silence
                async with asyncio.timeout(max(0.1, min(1.0, until - time.monotonic()))):
                    await self._lease.end()
        await self._publisher.stop()
        await self._call_spool.stop(max(0.1, min(1.0, until - time.monotonic())))
        await self._surroundings.stop()
        await self.transports.stop()

    def not_ready(self) -> list[str]:
        """Why it does not speak SIP: before all that it needs has been there once, and while another has its name.

        Later it is ready whatever is away: phones hear 503, and when to come again.
        """
        if self._surroundings.replaced:
            return ["another edge runs under the same name"]
        if self._begun:
            return []
        return [why for why in self._needs().values() if why] or ["not serving yet"]

    def status(self) -> dict[str, str]:
        """By what it needs, why that is away; "" while it is there. UDP and TCP do without a certificate."""
        status = self._needs() | {"clocks": self._clocks()}
        if not self._config.certificate:
            return status
        return status | {"certificate": self._certificates.trouble(time.monotonic())}

    def _clocks(self) -> str:
        return "; ".join(filter(None, (self._brokers_clocks(), self._database_clock())))

    def _brokers_clocks(self) -> str:
        """Each broker stamps what it leads; the log's time is to be one."""
        apart = self._clock.apart(time.monotonic())
        if not apart:
            return ""
        return f"the brokers' clocks are {apart:.0f} s apart: commands are late (503) and nonces stale; run NTP there"

    def _database_clock(self) -> str:
        """Bindings end by the log's clock, and are looked for by the database's."""
        if abs(self._ahead) < CLOCKS_APART:
            return ""
        if self._ahead > 0:
            told = "ahead of the log's: calls lose registrations early, by what of it is above RAMAL_EDGE_GRACE_SECONDS"
        else:
            told = "behind the log's: phones are called for so much longer than they are registered"
        return f"the database's clock is {abs(self._ahead):.0f} s {told}"

    def _needs(self) -> dict[str, str]:
        """The same of what it cannot begin without."""
        status = {what: f"the {what} is away: {why}" if why else "" for what, why in self._away.items()}
        away = self._replies.away or ("" if self._replies.positioned else "not positioned yet")
        status["replies"] = f"replies are not read: {away}" if away else ""
        status["commands"] = "commands are not appended" if self._publisher.away else ""
        return status | self._surroundings.status()

    def addresses(self) -> dict[str, str]:
        """By transport, the `host:port` that this edge is known by: the advertised, else the first bound one."""
        addresses = {}
        for transport in TRANSPORTS:
            bound = self.transports.bound(transport)
            if bound:
                addresses[transport] = self._known_by(transport, *bound[0])
        return addresses

    def _reached_at(self) -> dict[tuple[str, bool], tuple[str, int]]:
        """By transport and family, the first bound address; of a wildcard, that by which this host goes out."""
        found: dict[tuple[str, bool], tuple[str, int]] = {}
        for transport in TRANSPORTS:
            for host, port in self.transports.bound(transport):
                ipv6 = ":" in host
                reached = outgoing_address(ipv6=ipv6) if host in WILDCARDS else host
                found.setdefault((transport, ipv6), (reached, port))
        return found

    def _heard_at(self) -> list[tuple[str, int]]:
        bound = {transport: self.transports.bound(transport) for transport in TRANSPORTS}
        return heard_at(bound, self._config.advertised, host_addresses())

    def _known_by(self, transport: str, host: str, port: int) -> str:
        advertised = self._config.advertised.get(transport)
        if advertised is None:
            return host_port(host, port)
        return advertised if _has_port(advertised) else host_port(advertised.strip("[]"), port)

    def _own_hosts(self) -> frozenset[str]:
        """Every name and address that means this edge, whatever address a message came to."""
        hosts = {"localhost"}
        hosts.update(host for bound in self._endpoints.values() for host, _ in bound if host not in WILDCARDS)
        hosts.update(_host(text, "RAMAL_EDGE_ADVERTISED") for text in self._config.advertised.values())
        if self._config.service_name:
            hosts.add(_host(self._config.service_name, "RAMAL_EDGE_SERVICE_NAME"))
        return frozenset(host.lower() for host in hosts)

    def _unpublished(self, ids: list[str]) -> None:
        self.core.log_away = True
        self.transports.unpublished(ids)

    async def _stay_ready(self) -> None:
        """Renews the lease and asks the database, for ever; begins to serve once all has answered."""
        while True:
            self._away["log"] = await self._renew()
            self._away["database"] = await self._ask_database()
            self.core.log_away = self._publisher.away
            self._tell_of_brokers()
            serving = self._clock.learnt and self._publisher.ready and self._replies.positioned
            if serving and not self.core.serving:
                self.core.serving = True
                log.info("serving", extra={"edge": self.edge, "boot": self.boot, "addresses": self.addresses()})
            away = any(self._needs().values())
            self._begun = self._begun or (self.core.serving and not away)
            await asyncio.sleep(RETRY if away or not self._begun else self._config.lease_seconds)

    async def _renew(self) -> str:
        """Why the log is away; empty when the lease is renewed."""
        try:
            if not self._publisher.ready:
                await self._publisher.start()
            if self._lease:
                await self._lease.renew()
            self._publisher.away = False
        except LogUnavailable as error:
            return str(error) or "no answer"
        except Exception as error:  # a missing topic or a bug: said, and tried again
            log.exception("the lease was not renewed")
            return str(error)
        return ""

    async def _ask_database(self) -> str:
        asked = self._clock.at(time.monotonic()) / 1000
        try:
            now = await time_of(self._database)
        except DatabaseUnavailable as error:
            return str(error) or "no answer"
        except Exception as error:  # a bug: said, and tried again
            log.exception("the database could not be asked")
            return str(error)
        if self._clock.learnt:
            self._compare(asked, now, self._clock.at(time.monotonic()) / 1000)
        return ""

    def _compare(self, asked: float, now: float, answered: float) -> None:
        """What the database called `now`, to the second, lay between two moments of the log's time."""
        before, least, most = self._ahead, now - answered, now + 1.0 - asked
        self._ahead = 0.0 if least <= 0.0 <= most else (least + most) / 2
        DATABASE_CLOCK.set(self._ahead)
        if abs(self._ahead) >= CLOCKS_APART > abs(before):
            log.error("the clocks of database and log are apart", extra={"cause": self._database_clock()})

    def _tell_of_brokers(self) -> None:
        told, cause = self._brokers_apart, self._brokers_clocks()
        self._brokers_apart = bool(cause)
        if cause and not told:
            log.error("the clocks of brokers are apart", extra={"cause": cause})


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _host(text: str, key: str) -> str:
    """The host of a `host` or `host:port`; raises ConfigError that names the key."""
    return endpoint(text, key)[0] if _has_port(text) else text.strip("[]")


def _has_port(text: str) -> bool:
    """Whether a `host` or `host:port` has a port; a bare IPv6 address has none."""
    return text.rpartition(":")[2].isdecimal() and (text.count(":") == 1 or text.startswith("["))


def stream_settings(config: EdgeConfig) -> StreamSettings:
    """What connections need to know; raises ConfigError."""
    for key, seconds in (("MESSAGE_SECONDS", config.message_seconds), ("IDLE_SECONDS", config.idle_seconds)):
        if seconds <= 0:
            raise ConfigError(f"RAMAL_EDGE_{key}: must be above 0")
    return StreamSettings(
        StreamLimits(
            config.max_connections, config.connections_per_source, config.message_seconds, config.idle_seconds
        ),
        Certificates(config.certificate, config.private_key, config.trusted_authorities),
        config.origins,
        networks(config.proxy_protocol_from, "RAMAL_EDGE_PROXY_PROTOCOL_FROM"),
    )


def build(sources: Sources, log: Log, database: Database) -> EdgeService:
    """The service of these settings; raises ConfigError."""
    common = sources.section(Common)
    config = sources.section(EdgeConfig, "edge")
    unknown = config.advertised.keys() - set(TRANSPORTS)
    if unknown:
        raise ConfigError(f"RAMAL_EDGE_ADVERTISED: {', '.join(sorted(unknown))}: there is no such transport")
    if (config.tls or config.wss) and not config.certificate:
        raise ConfigError("RAMAL_EDGE_CERTIFICATE: TLS and WSS need one")
    return EdgeService(config, common, sources.section(GatewaysConfig), log, database)
