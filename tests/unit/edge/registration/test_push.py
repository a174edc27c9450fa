"""Push notification parameters of a Contact (RFC 8599): kept as any other, for whoever pushes (R39)."""

import msgspec
import pytest

from tests.kit.calls import Cluster
from tests.kit.dialogs import invite
from tests.kit.edge import NOW, asked, binding, core, credible, heard, receive, registered

PUSHED = ";pn-provider=fcm;pn-prid=ac%2Fb:1;pn-param=acme%2Eproject"


@pytest.mark.parametrize("provider", ["fcm", "apns", "webpush", "nobody-knows"])
def test_r39_they_are_kept_whatever_the_provider_is_and_come_back_as_sent(provider: str) -> None:
    """Nobody here pushes, so no provider is better known than another: none is 555, and none is promised a push."""
    uri = f"sip:alice@10.0.0.9:5062{PUSHED.replace('fcm', provider)}"
    edge = core()
    command = asked(receive(edge, credible(contact=f"<{uri}>")))
    (contact,) = command.register.contacts
    assert contact.uri == uri
    edge.replied([registered(command, [binding(uri)])], NOW)
    (response,) = heard(edge.take())
    assert (response.status, response.values("contact")) == (200, [f"<{uri}>;expires=300"])
    assert response.first("feature-caps") is None


def test_r39_a_call_to_the_phone_has_them_in_its_request_uri() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    rows = cluster.bindings["bob@example.test"]
    rows[0] = msgspec.structs.replace(rows[0], contact=f"{rows[0].contact}{PUSHED}")
    invite(alice)
    assert bob.got_request("INVITE").uri == f"{bob.contact}{PUSHED}"
