"""Probes of gateways: OPTIONS of our own, each a client transaction (RFC 3261 section 11). PURE."""

from edge.core.actions import NextHop, Resolve
from edge.core.answers import Answers
from edge.core.flow import Way
from edge.core.gateways.routes import Gateways
from edge.core.reach import Reach
from edge.core.tokens.branch import Branches
from sipcore.message import Request, Response, row
from sipcore.transactions import Transactions

LOOK = 1.0
"""Seconds between two looks at what is due."""


class Probe:
    """An OPTIONS to one gateway, or only the look-up of its name."""

    __slots__ = ("asks", "gateway", "uri")

    def __init__(self, gateway: str, uri: str, asks: bool) -> None:
        self.gateway = gateway
        self.uri = uri
        self.asks = asks


class Probes:
    """Asks each gateway now and then whether it is there."""

    def __init__(
        self, answers: Answers, branches: Branches, layer: Transactions, reach: Reach, gateways: Gateways
    ) -> None:
        self._answers = answers
        self._branches = branches
        self._layer = layer
        self._reach = reach
        self._gateways = gateways
        self._resolving: dict[int, Probe] = {}
        self._next = 0.0

    def next_timer(self) -> float | None:
        """When `on_time` is next of use."""
        return self._next if self._gateways.probed else None

    def on_time(self, now: float) -> None:
        """Asks those whose turn it is."""
        if not self._gateways.probed or now < self._next:
            return
        self._next = now + LOOK
        for gateway, uri, asks in self._gateways.due(now):
            number = self._answers.question()
            self._resolving[number] = Probe(gateway, uri, asks)
            self._answers.actions.resolves.append(Resolve(number, uri))

    def resolved(self, number: int, hops: list[NextHop], now: float) -> bool:
        """Where a gateway's URI leads; whether it was asked for here."""
        probe = self._resolving.pop(number, None)
        if probe is None:
            return False
        self._gateways.learn(hop.host for hop in hops)
        if not probe.asks:
            return True
        if not hops:
            self._answers.drop("gateway-not-found")
            self._gateways.unanswered(probe.gateway)
            return True
        first = hops[0]
        hop = self._reach.outward(first.transport, first.host, first.port)
        flow = hop.flow
        branch = self._branches.make("probe")
        rows = (
            row("Via", self._reach.via(flow, branch)),
            row("Max-Forwards", "70"),
            row("From", f"<sip:{self._answers.settings.default_domain}>;tag={branch[-16:]}"),
            row("To", f"<{probe.uri}>"),
            row("Call-ID", f"probe-{branch[-32:]}"),
            row("CSeq", "1 OPTIONS"),
        )
        request = Request("OPTIONS", probe.uri, rows)
        self._layer.open_client(request, Way(hop, first.port, first.name), flow.reliable, now, user=probe)
        return True

    def heard(self, user: object, response: Response, now: float) -> bool:
        """A response to a probe; whether it was one of ours."""
        if not isinstance(user, Probe):
            return False
        if response.status >= 200:
            self._tell(user, now, response.status)
        return True

    def lost(self, user: object, now: float) -> bool:
        """A probe that was not answered, or could not be sent; whether it was one of ours."""
        if not isinstance(user, Probe):
            return False
        self._tell(user, now, 408)
        return True

    def _tell(self, probe: Probe, now: float, status: int) -> None:
        before = self._gateways.alive(probe.gateway)
        self._gateways.answered(probe.gateway, status)
        if self._gateways.alive(probe.gateway) != before:
            self._answers.drop("gateway-down" if before else "gateway-up")
