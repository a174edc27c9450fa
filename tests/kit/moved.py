"""A call whose ends move."""

from sipcore.message import Request
from tests.kit.calls import DOMAIN, Cluster, Phone
from tests.kit.dialogs import answered, invite, routes_of_caller

BY = ("udp", "tcp", "tls", "ws", "wss")


class Called:
    """A call that stands, and the next request of either side."""

    def __init__(self, cluster: Cluster, alice: Phone, bob: Phone) -> None:
        self.cluster = cluster
        invite(alice)
        self.received, self.ok = answered(alice, bob)
        self.alice_is, self.bob_is = self.ok.first("from"), self.ok.first("to")
        self.cseq = 10

    def sends(self, who: Phone, method: str, target: str, **more: str) -> None:
        """A request of the dialog from alice, or from bob, to this target."""
        self.cseq += 1
        by_caller = who.name == "alice"
        ends = (self.alice_is, self.bob_is) if by_caller else (self.bob_is, self.alice_is)
        routes = routes_of_caller(self.ok) if by_caller else self.received.values("record-route")
        who.request(method, target, from_=ends[0], to=ends[1], routes=routes, cseq=self.cseq, **more)

    def passes(self, who: Phone, method: str, to: Phone, target: str = "") -> Request:
        """The same, which must reach this phone, and its 200 the sender."""
        self.sends(who, method, target or to.contact)
        if method == "INVITE":
            who.got_response(100)
        got = to.got_request(method)
        assert got.uri == (target or to.contact)
        if method != "ACK":
            to.respond(got, 200)
            who.got_response(200)
        return got


def moved(phone: Phone, edge: str, transport: str) -> Phone:
    """The same user's phone in another network, registered there."""
    there = Phone(phone.cluster, phone.name, edge, transport)
    there.branches = 100
    phone.cluster.bindings[f"{phone.name}@{DOMAIN}"].clear()
    phone.cluster.register(there)
    return there
