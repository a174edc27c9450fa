"""Calls between the phones of `tests.kit.calls`: placed, answered, and what their messages say of the dialog."""

from typing import Any

from edge.core.actions import NextHop
from edge.core.gateways.routes import Gateway, GatewaysConfig
from sipcore.message import Request, Response
from tests.kit.calls import DOMAIN, Cluster, Phone

BOB = f"sip:bob@{DOMAIN}"
OFFER = "v=0\r\n"


def invite(caller: Phone, uri: str = BOB, *rows: str, **fields: Any) -> str:
    """An INVITE with credentials; its 100 is taken off."""
    branch = caller.request("INVITE", uri, *rows, authorized=True, body=OFFER, **fields)
    caller.got_response(100)
    return branch


def answered(caller: Phone, callee: Phone) -> tuple[Request, Response]:
    """Rings, answers, and acknowledges: the INVITE as the callee has it, and the 200 as the caller has it."""
    received = callee.got_request("INVITE")
    callee.respond(received, 180)
    caller.got_response(180)
    callee.respond(received, 200, body=OFFER)
    return received, caller.got_response(200)


def established(caller: Phone, callee: Phone) -> tuple[Request, Response]:
    """A call that was answered without ringing: the INVITE as the callee has it, and the 200 as the caller has it."""
    invite(caller)
    received = callee.got_request("INVITE")
    callee.respond(received, 200)
    return received, caller.got_response(200)


def routes_of_caller(response: Response) -> list[str]:
    """The caller's route set."""
    return list(reversed(response.values("record-route")))


def contact(message: Request | Response) -> str:
    """The URI of its first Contact."""
    return message.contacts[0].uri


def statuses(phone: Phone) -> list[int]:
    """The status of each response that has not been taken from its inbox."""
    return [message.status for message in phone.inbox if isinstance(message, Response)]


def by_gateway(**settings: Any) -> GatewaysConfig:
    """Every number goes by a gateway at 203.0.113.9, which is nobody's phone and is asked nothing."""
    return GatewaysConfig({"pstn": Gateway("sip:203.0.113.9:5060", ("",), probe_seconds=0, **settings)})


TRUNK = GatewaysConfig({"pstn": Gateway("sip:198.51.100.99", ("",), prepend="55", probe_seconds=30)})
"""A gateway that takes every number."""


def trunk(cluster: Cluster) -> Phone:
    """The gateway of a cluster whose `gateways` are TRUNK."""
    gateway = Phone(cluster, "pstn", "edge-1")
    hop = NextHop("udp", gateway.flow.remote_host, 5062)
    cluster.hops.update({"sip:198.51.100.99": [hop], "sip:5533812800@198.51.100.99": [hop]})
    return gateway
