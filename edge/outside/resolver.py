"""RFC 3263 over DNS: a URI's next hops in the order to be tried, in a bounded time and within bounds.

The resolver library keeps answers by their TTL, and that there is none by the zone's own (RFC 2308). URIs that ask
for the same are answered by one look-up.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver
from dns.nameserver import Do53Nameserver
from dns.rdtypes.IN.NAPTR import NAPTR
from dns.rdtypes.IN.SRV import SRV

from edge.config import endpoint
from edge.core.actions import NextHop, Resolve
from edge.core.addresses import parsed
from edge.core.deny import Denied
from edge.core.next_hops import (
    DEFAULT_PORTS,
    Naptr,
    NextHopQuery,
    Service,
    by_naptr,
    in_order,
    numeric,
    query_of,
    services,
)
from runtime.errors import ConfigError
from runtime.metrics import dropped
from runtime.tasks import Tasks

log = logging.getLogger("ramal.edge")

SECONDS = 2.0
"""What a URI may take in all."""
TRY_SECONDS = 0.6
"""After which a name server is asked again, or the next one."""
UNDER_WAY = 50
"""Look-ups at one time; others wait for their turn, within their 2 s."""
WAITING = 2_000
"""Look-ups that are not answered yet; a further one leads nowhere."""
REMEMBERED = 10_000
"""Answers of name servers kept."""
MOST_HOPS = 16
"""Addresses of one URI; what a stranger's DNS has more is not tried."""
HOSTS_FILE = Path("/etc/hosts")
_NAPTR_SECONDS = 0.8
"""Most domains have none, and some name servers do not answer what they do not know."""


class Resolver:
    """Finds the next hops of URIs; what goes to DNS, by at most UNDER_WAY look-ups at one time."""

    def __init__(
        self,
        resolved: Callable[[int, list[NextHop]], None],
        denied: Denied,
        nameservers: Sequence[str] = (),
        families: Sequence[int] = (4, 6),
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`resolved` is told of every URI, never from within `resolve`; addresses that `denied` refuses are left out.

        `nameservers`: `host` or `host:port`, else those of the system. `families`: of addresses, the preferred one
        first. Raises ConfigError.
        """
        self._resolved = resolved
        self._denied = denied
        self._types = [{4: "A", 6: "AAAA"}[family] for family in families]
        self._families = frozenset(families)
        self._draw = draw
        self._dns = _library(nameservers)
        self._waiting: dict[NextHopQuery, list[int]] = {}
        self._tasks = Tasks()
        self._places = asyncio.Semaphore(UNDER_WAY)

    def resolve(self, asked: list[Resolve]) -> None:
        """Answers each within SECONDS."""
        for id_, uri in asked:
            target = query_of(uri)
            hops = numeric(uri)
            if target is None or hops is not None:
                asyncio.get_running_loop().call_soon(self._resolved, id_, self._allowed(hops or []))
            elif (ids := self._waiting.get(target)) is not None:
                ids.append(id_)
            elif len(self._waiting) >= WAITING:
                dropped("resolve-overload")
                asyncio.get_running_loop().call_soon(self._resolved, id_, [])
            else:
                self._waiting[target] = [id_]
                self._tasks.begin(self._answer(target), "resolve")

    async def knows(self, name: str) -> bool:
        """Whether a name leads anywhere, by DNS or the hosts file, within SECONDS; addresses do."""
        target = query_of(f"sip:{name}")
        if target is None or target.is_numeric or _in_hosts_file(target.host):
            return target is not None
        try:
            async with asyncio.timeout(SECONDS):
                return bool(await self._find(target))
        except TimeoutError:
            return False

    async def stop(self) -> None:
        """Ends what is under way, unanswered."""
        await self._tasks.stop()

    async def _answer(self, target: NextHopQuery) -> None:
        hops: list[NextHop] = []
        try:
            async with asyncio.timeout(SECONDS), self._places:
                hops = self._allowed(await self._find(target))
        except TimeoutError:
            dropped("resolve-timeout")
        except Exception:  # a bug: this name leads nowhere, the next ones are looked up
            log.exception("a name broke the resolver", extra={"host": target.host})
        for id_ in self._waiting.pop(target):
            self._resolved(id_, hops)

    def _allowed(self, hops: list[NextHop]) -> list[NextHop]:
        allowed = []
        for hop in dict.fromkeys(hops):
            if self._denied.refuses(hop.host):
                dropped("address-denied")
            elif (address := parsed(hop.host)) is not None and address.version in self._families:
                allowed.append(hop)
        return allowed[:MOST_HOPS]

    async def _find(self, target: NextHopQuery) -> list[NextHop]:
        """Section 4 of RFC 3263 for a name."""
        if target.port:
            return target.at(await self._addresses(target.host))
        if not target.transport:
            for transport, name in by_naptr(await self._naptr(target.host), target.secure):
                if hops := await self._by_service(target, transport, name):
                    return hops
        asked = services(target)
        found = await asyncio.gather(*[self._srv(name) for _, name in asked])
        if any(found):
            each = [
                await self._reach(target, transport, records)
                for (transport, _), records in zip(asked, found, strict=True)
            ]
            return [hop for hops in each for hop in hops]
        return target.at(await self._addresses(target.host))

    async def _by_service(self, target: NextHopQuery, transport: str, name: str) -> list[NextHop]:
        return await self._reach(target, transport, await self._srv(name))

    async def _reach(self, target: NextHopQuery, transport: str, records: list[Service]) -> list[NextHop]:
        """Addresses of the hosts of SRV records; the name to be proved is that of the URI (RFC 5922 section 4)."""
        ordered = [record for record in in_order(records, self._draw) if record.target][:MOST_HOPS]
        found = await asyncio.gather(*[self._addresses(record.target) for record in ordered])
        return [
            NextHop(transport, address, record.port or DEFAULT_PORTS[transport], target.host)
            for record, addresses in zip(ordered, found, strict=True)
            for address in addresses
        ]

    async def _addresses(self, name: str) -> list[str]:
        if parsed(name) is not None:
            return [name]
        found = await asyncio.gather(*[self._ask(name, kind) for kind in self._types])
        return [record.to_text() for records in found for record in records]

    async def _srv(self, name: str) -> list[Service]:
        records = await self._ask(name, "SRV")
        return [
            Service(record.priority, record.weight, record.port, record.target.to_text(omit_final_dot=True).strip("."))
            for record in records
            if isinstance(record, SRV)
        ]

    async def _naptr(self, name: str) -> list[Naptr]:
        try:
            async with asyncio.timeout(_NAPTR_SECONDS):
                records = await self._ask(name, "NAPTR")
        except TimeoutError:
            return []
        return [
            Naptr(
                record.order,
                record.preference,
                record.flags.decode("ascii", "replace"),
                record.service.decode("ascii", "replace"),
                record.regexp.decode("ascii", "replace"),
                record.replacement.to_text(omit_final_dot=True).strip("."),
            )
            for record in records
            if isinstance(record, NAPTR)
        ]

    async def _ask(self, name: str, kind: str) -> list[dns.rdata.Rdata]:
        """The records of a name; none if it has none, or nobody says."""
        try:
            answer = await self._dns.resolve(dns.name.from_text(name), kind, raise_on_no_answer=False, search=False)
        except dns.exception.DNSException as error:
            if not isinstance(error, dns.resolver.NXDOMAIN):
                dropped("dns-failed")
            return []
        except OSError:
            dropped("dns-failed")
            return []
        return list(answer.rrset or ())


def _in_hosts_file(name: str) -> bool:
    """Whether this host's own file has the name; other hosts are then told it likewise."""
    try:
        lines = HOSTS_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(name in line.partition("#")[0].lower().split()[1:] for line in lines)


def _library(nameservers: Sequence[str]) -> dns.asyncresolver.Resolver:
    try:
        resolver = dns.asyncresolver.Resolver(configure=not nameservers)
    except (dns.resolver.NoResolverConfiguration, OSError) as error:
        log.warning("names cannot be resolved", extra={"cause": str(error)})
        resolver = dns.asyncresolver.Resolver(configure=False)
    if nameservers:
        resolver.nameservers = [_nameserver(text) for text in nameservers]
    resolver.cache = dns.resolver.LRUCache(REMEMBERED)
    resolver.timeout = TRY_SECONDS
    resolver.lifetime = SECONDS
    return resolver


def _nameserver(text: str) -> Do53Nameserver:
    host, port = (text, 53) if parsed(text) is not None else endpoint(text, "RAMAL_EDGE_NAMESERVERS")
    address = parsed(host)
    if address is None:
        raise ConfigError(f"RAMAL_EDGE_NAMESERVERS: {text!r} is no address")
    return Do53Nameserver(str(address), port)
