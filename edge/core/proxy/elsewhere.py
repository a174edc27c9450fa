"""Contacts that are elsewhere than their phones' flows: which are taken, and where they lead (CHECKLIST S10). PURE."""

from collections.abc import Callable, Iterable

from edge.core.actions import Binding, NextHop
from edge.core.addresses import parsed
from edge.core.answers import Answers
from edge.core.flow import Flow, Way
from edge.core.next_hops import DEFAULT_PORTS, query_of
from edge.core.proxy.target_set import Target
from edge.core.proxy.waiting import Call
from edge.core.reach import Reach
from sipcore import proxy
from sipcore.uri import Uri, parse_uri


class Fork:
    """A call whose Contacts elsewhere are resolved, all at once, before it rings anywhere."""

    __slots__ = ("call", "callee", "left", "targets")

    def __init__(self, call: Call, callee: str, targets: list[Target], left: int) -> None:
        self.call = call
        self.callee = callee
        """The AOR that is called."""
        self.targets = targets
        self.left = left
        """How many are not resolved yet."""


class ByContact:
    """One of them."""

    __slots__ = ("binding", "call", "fork")

    def __init__(self, fork: Fork, binding: Binding) -> None:
        self.fork, self.binding, self.call = fork, binding, fork.call


class Elsewhere:
    """What is reached by URI and not by a flow."""

    def __init__(self, answers: Answers, reach: Reach, trusts_us: Callable[[str], bool]) -> None:
        """`trusts_us`: whether somebody at this address takes calls from us unasked: no Contact leads there."""
        self._answers = answers
        self._reach = reach
        self._trusts_us = trusts_us

    def refusal(self, contact: Uri, flow: Flow) -> str:
        """Why a Contact is not taken that the flow of its REGISTER does not reach; "" if it is.

        Who registers one has callers send where he says; so may he himself, where calls to other domains are relayed.
        """
        asked = query_of(str(contact))
        if asked is None:
            return "Contact Cannot Be Reached"
        transport = asked.default_transport
        same = parsed(asked.host) == parsed(flow.remote_host)
        denied = asked.is_numeric and self._answers.settings.refuses(asked.host)
        if denied and not (same and transport == flow.transport == "udp"):
            return "Contact Cannot Be Reached"
        if self._answers.us.has(asked.host, flow, asked.port or DEFAULT_PORTS[transport]):
            return "Contact Is This Server"
        if same:
            return ""
        if self._trusts_us(asked.host):
            return "Contact Leads to a Gateway"
        return "" if self._answers.settings.relay else "Contact Is Elsewhere"

    def resolved(self, asking: ByContact, hops: Iterable[NextHop]) -> Fork:
        """The fork of which this Contact leads there."""
        fork, binding = asking.fork, asking.binding
        fork.left -= 1
        if ways := self.ways([hop for hop in hops if not self._trusts_us(hop.host)], fork.call):
            uri = proxy.request_uri(parse_uri(binding.contact))
            fork.targets.append(Target(uri, ways, binding.q if binding.q >= 0 else 1.0))
        return fork

    def ways(self, hops: Iterable[NextHop], call: Call, uri: str = "") -> list[Way]:
        """The ways from this edge to next hops; `uri` as in `Way`."""
        outward = self._reach.outward
        return [
            Way(outward(hop.transport, hop.host, hop.port, call.flow), hop.port, hop.name, may_grow=True, uri=uri)
            for hop in hops
        ]
