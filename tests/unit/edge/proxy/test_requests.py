"""Requests are judged before anybody is looked for, in the order of RFC 3261 section 16.3."""

from typing import Any

import pytest

from tests.kit.calls import DOMAIN, Cluster
from tests.kit.dialogs import BOB, established, invite, routes_of_caller, statuses


def test_y01_an_unknown_scheme_is_416_and_an_invite_without_user_484() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    alice.request("INVITE", "mailto:bob@example.test", to="<sip:x@y>")
    alice.got_response(416)
    alice.request("INVITE", f"sip:{DOMAIN}", call_id="2")
    alice.got_response(484)


def test_y02_max_forwards_0_is_483_and_absent_becomes_70() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB, max_forwards=0)
    alice.got_response(483)
    invite(alice, max_forwards=None, call_id="2")
    assert bob.got_request("INVITE").first("max-forwards") == "69"


@pytest.mark.parametrize("hops", ["00", "000"])
def test_y02_max_forwards_of_several_zeros_is_0(hops: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB, f"Max-Forwards: {hops}", max_forwards=None, authorized=True)
    alice.got_response(483)
    assert not bob.inbox


@pytest.mark.parametrize(
    ("status", "max_forwards", "rows"),
    [
        (483, 0, ()),
        (420, 70, ("Proxy-Require: foo",)),
        (440, 70, ("Max-Breadth: 0",)),
        (400, None, ("Max-Forwards: 999",)),
    ],
)
def test_y02_the_ack_of_what_we_refuse_within_a_dialog_ends_here_and_that_of_a_2xx_passes(
    status: int, max_forwards: int | None, rows: tuple[str, ...]
) -> None:
    """Its To tag is the callee's; only its branch says whose answer it acknowledges (RFC 3261 section 17.1.1.3)."""
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    _, ok = established(alice, bob)
    dialog: dict[str, Any] = {"to": ok.first("to"), "routes": routes_of_caller(ok)}
    again = {**dialog, "cseq": 2, "branch": "z9hG4bKrefused"}
    for _ in range(2):  # a repetition is refused again
        alice.request("INVITE", bob.contact, *rows, max_forwards=max_forwards, **again)
        alice.got_response(status)
        alice.request("ACK", bob.contact, contact=False, **again)
    assert not bob.inbox
    assert cluster.drops["ack"] == 2
    alice.request("ACK", bob.contact, contact=False, **dialog)
    bob.got_request("ACK")


def test_y03_the_ack_of_a_loop_within_a_dialog_ends_here() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    _, ok = established(alice, bob)
    routes, to = routes_of_caller(ok), ok.first("to")
    alice.request("INVITE", bob.contact, to=to, routes=routes, cseq=2)
    vias = [f"Via: {value}" for value in bob.got_request("INVITE").values("via")]
    alice.inbox.clear()
    alice.request("INVITE", bob.contact, *vias, to=to, routes=routes, cseq=2, branch="z9hG4bKloop")
    alice.got_response(482)
    alice.request("ACK", bob.contact, to=to, routes=routes, cseq=2, branch="z9hG4bKloop", contact=False)
    assert not bob.inbox


def test_y03_a_request_that_a_gateway_sends_back_unchanged_is_482() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    received = bob.got_request("INVITE")
    vias = "\r\n".join(f"Via: {row.value}" for row in received.rows if row.name == "via")
    back = (
        f"INVITE {BOB} SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.2:5062;branch=z9hG4bKback\r\n{vias}\r\n"
        f"Max-Forwards: 60\r\nFrom: {received.first('from')}\r\nTo: {received.first('to')}\r\n"
        f"Call-ID: {received.call_id}\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    )
    bob.send(back.encode())
    bob.got_response(482)
    bob.send(back.replace(BOB, f"sip:carol@{DOMAIN}").replace("z9hG4bKback", "z9hG4bKspiral").encode())
    bob.got_response(403) if bob.inbox and statuses(bob) == [403] else bob.got_response(407)


def test_x16_the_same_request_by_another_path_is_no_error_to_a_proxy() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    first = bob.got_request("INVITE")
    invite(alice)
    second = bob.got_request("INVITE")
    assert first.branch != second.branch
    bob.respond(second, 482)
    alice.got_response(482)
    bob.respond(first, 200)
    alice.got_response(200)


def test_y05_an_unknown_proxy_require_is_420_and_require_passes() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB, "Proxy-Require: foo, bar")
    assert alice.got_response(420).values("unsupported") == ["foo", "bar"]
    invite(alice, call_id="2")
    bob.inbox.clear()
    alice.request("INVITE", BOB, "Require: foo", authorized=True, call_id="3")
    assert bob.got_request("INVITE").values("require") == ["foo"]


def test_y06_a_preloaded_route_to_us_is_taken_off() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, routes=["<sip:192.0.2.1;lr>"])
    assert bob.got_request("INVITE").values("route") == []


def test_y07_a_preloaded_route_to_somebody_else_is_403() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    alice.request("INVITE", "sip:x@elsewhere.test", routes=["<sip:gateway.elsewhere.test;lr>"], authorized=True)
    alice.got_response(403)


def test_r41_a_subscription_to_registrations_is_489_and_allow_events_says_which_are_none() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    for number, whose in enumerate((f"sip:alice@{DOMAIN}", BOB, f"sip:{DOMAIN}")):
        rows = ("Event: reg", "Accept: application/reginfo+xml", "Expires: 3761")
        alice.request("SUBSCRIBE", whose, *rows, branch=f"z9hG4bK{number}")
        refused = alice.got_response(489)
        assert "reg" not in refused.values("allow-events")
    assert not bob.inbox


def test_y37_subscribe_and_publish_to_users_are_489_and_never_503() -> None:
    cluster = Cluster(max_calls=0)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    for method in ("SUBSCRIBE", "PUBLISH"):
        alice.request(method, BOB, "Event: presence")
        assert alice.got_response(489).first("allow-events")
    alice.request("NOTIFY", BOB, "Event: presence")
    alice.got_response(403)
    alice.request("REFER", f"sip:{DOMAIN}", "Refer-To: <sip:x@y>")
    alice.got_response(405)
    assert not bob.inbox
