"""Calls to GRUUs: to that phone and no other, before a dialog and within one (RFC 5627 section 6; CHECKLIST N15)."""

import pytest

from edge.core.tokens.gruu import Gruus
from events.calls import CallAttempted, steps
from sipcore.message import Response
from tests.kit.calls import DOMAIN, KEYS, WALL, Cluster, Phone
from tests.kit.dialogs import TRUNK, contact, invite, routes_of_caller

GRUUS = Gruus(KEYS)
BOB, DESK, MOBILE = f"bob@{DOMAIN}", "<urn:uuid:Desk>", "<urn:uuid:mobile>"
SINCE = int(WALL * 1000)
PUBLIC = GRUUS.public(BOB, DESK)


def temporary(at: int = SINCE, aor: str = BOB, instance: str = DESK) -> str:
    return GRUUS.temporary(aor, instance, at, bytes(8))


@pytest.fixture
def phones() -> tuple[Cluster, Phone, Phone, Phone]:
    """Alice's, Bob's desk and his mobile, which has the same AOR."""
    cluster = Cluster()
    alice = cluster.phone("alice")
    desk = cluster.phone("bob", "edge-2", "tcp", instance=DESK, gruus=SINCE)
    return cluster, alice, desk, cluster.phone("bob", "edge-1", instance=MOBILE, gruus=SINCE)


@pytest.mark.parametrize("uri", [PUBLIC, temporary(), f"{PUBLIC};method=INVITE", PUBLIC.replace("Desk", "dESK")])
@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "OPTIONS", "REFER"])
def test_n15_a_request_to_a_gruu_reaches_that_phone_alone_at_its_contact(
    phones: tuple[Cluster, Phone, Phone, Phone], uri: str, method: str
) -> None:
    cluster, alice, desk, mobile = phones
    alice.request(method, uri, authorized=True)
    received = desk.got_request(method)
    assert received.uri == desk.contact
    assert ("record-route" in {row.name for row in received.rows}) == (method in ("INVITE", "REFER"))
    desk.respond(received, 200)
    assert [m.status for m in alice.inbox if isinstance(m, Response)][-1] == 200
    cluster.turn(3)
    assert not mobile.inbox


def test_n15_the_aor_still_reaches_both(phones: tuple[Cluster, Phone, Phone, Phone]) -> None:
    _, alice, desk, mobile = phones
    invite(alice, f"sip:{BOB}")
    desk.got_request("INVITE")
    mobile.got_request("INVITE")


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        (GRUUS.public(BOB, "<urn:uuid:away>"), 480),
        (GRUUS.public(f"nobody@{DOMAIN}", DESK), 404),
        (f"sip:{BOB};gr=urn:uuid:Desk", 404),
        (f"sip:{BOB};gr=urn:uuid:Desk.aaaaaaaaaaaaaaaa", 404),
        (f"sip:{BOB};gr", 404),
        (PUBLIC.replace("bob", "alice"), 404),
        (f"sip:tgruu.aaaa@{DOMAIN};gr", 404),
        (temporary(instance="<urn:uuid:away>"), 404),
        (temporary(SINCE - 1), 404),
        (temporary(aor=f"bob@other.{DOMAIN}").replace(f"other.{DOMAIN}", DOMAIN), 404),
        (Gruus({"other": bytes(32)}).public(BOB, DESK), 404),
        (Gruus({"other": bytes(32)}).temporary(BOB, DESK, SINCE, bytes(8)), 404),
    ],
)
def test_n15_a_phone_that_is_away_is_480_and_what_we_never_gave_or_has_ended_404(
    phones: tuple[Cluster, Phone, Phone, Phone], uri: str, status: int
) -> None:
    _, alice, desk, mobile = phones
    invite(alice, uri)
    alice.got_response(status)
    assert not desk.inbox
    assert not mobile.inbox


def test_n15_a_number_of_nobody_with_gr_goes_by_no_gateway() -> None:
    cluster = Cluster(gateways=TRUNK)
    alice = cluster.phone("alice")
    invite(alice, GRUUS.public(f"+554812345678@{DOMAIN}", DESK))
    alice.got_response(404)


def test_n15_y10_a_phone_that_registers_while_a_gruu_rings_does_not_join(
    phones: tuple[Cluster, Phone, Phone, Phone],
) -> None:
    cluster, alice, desk, _ = phones
    invite(alice, PUBLIC)
    desk.respond(desk.got_request("INVITE"), 180)
    late = cluster.phone("bob", "edge-2", instance="<urn:uuid:late>")
    cluster.turn(3)
    assert not late.inbox


def test_n15_while_the_tables_are_away_a_gruu_is_routed_by_what_is_known_or_503(
    phones: tuple[Cluster, Phone, Phone, Phone],
) -> None:
    cluster, alice, desk, _ = phones
    cluster.away = True
    invite(alice, temporary())
    desk.got_request("INVITE")
    cluster.bindings.clear()
    invite(alice, PUBLIC, call_id="call-2")
    alice.got_response(503)


def test_n15_a_gruu_is_not_redirected() -> None:
    cluster = Cluster(redirects=lambda domain: True)
    alice, desk = cluster.phone("alice"), cluster.phone("bob", instance=DESK)
    invite(alice, PUBLIC)
    desk.got_request("INVITE")


def test_n15_a_phone_with_two_flows_is_reached_by_the_other_when_one_is_gone() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    first = cluster.phone("bob", "edge-1", "tcp", instance=DESK, gruus=SINCE)
    second = cluster.phone("bob", "edge-2", "tcp", instance=DESK, gruus=SINCE)
    invite(alice, temporary())
    second.got_request("INVITE")
    assert not first.inbox
    del cluster.phones[second.flow]
    invite(alice, temporary(), call_id="call-2")
    first.got_request("INVITE")


@pytest.mark.parametrize("target", [PUBLIC, temporary()])
def test_n15_within_a_dialog_a_gruu_leads_to_the_registered_contact(
    phones: tuple[Cluster, Phone, Phone, Phone], target: str
) -> None:
    cluster, alice, desk, mobile = phones
    invite(alice, target)
    desk.respond(desk.got_request("INVITE"), 200)
    answer = alice.got_response(200)
    routes, to = routes_of_caller(answer), answer.first("to")
    alice.request("ACK", target, to=to, routes=routes)
    assert desk.got_request("ACK").uri == desk.contact
    alice.request("INFO", target, to=to, routes=routes, cseq=2)
    received = desk.got_request("INFO")
    assert received.uri == desk.contact
    desk.respond(received, 200)
    alice.got_response(200)

    # The phone comes back by another flow: its GRUU leads there.
    cluster.bindings[BOB] = cluster.bindings[BOB][1:]
    again = cluster.phone("bob", "edge-1", "tcp", instance=DESK, gruus=SINCE)
    alice.request("BYE", target, to=to, routes=routes, cseq=3)
    assert again.got_request("BYE").uri == again.contact
    assert not mobile.inbox


def test_n15_within_a_dialog_a_phone_that_has_unregistered_is_still_reached(
    phones: tuple[Cluster, Phone, Phone, Phone],
) -> None:
    cluster, alice, desk, _ = phones
    invite(alice, PUBLIC)
    desk.respond(desk.got_request("INVITE"), 200)
    answer = alice.got_response(200)
    cluster.bindings.clear()
    alice.request("BYE", PUBLIC, to=answer.first("to"), routes=routes_of_caller(answer), cseq=2)
    desk.got_request("BYE")


def test_n15_y35_a_token_of_a_dialog_opens_no_way_to_the_gruu_of_somebody_else(
    phones: tuple[Cluster, Phone, Phone, Phone],
) -> None:
    cluster, alice, desk, _ = phones
    carol = cluster.phone("carol", instance="<urn:uuid:carol>", gruus=SINCE)
    invite(alice, f"sip:{BOB}")
    desk.respond(desk.got_request("INVITE"), 200)
    answer = alice.got_response(200)
    gruu = GRUUS.public(f"carol@{DOMAIN}", "<urn:uuid:carol>")
    alice.request("INFO", gruu, to=answer.first("to"), routes=routes_of_caller(answer), cseq=2)
    assert not carol.inbox


@pytest.mark.parametrize("temporary_one", [False, True])
def test_n15_the_caller_whose_contact_is_a_gruu_is_reached_by_it(temporary_one: bool) -> None:
    cluster = Cluster()
    aor = f"alice@{DOMAIN}"
    alice = cluster.phone("alice", "edge-1", "tcp", instance=DESK, gruus=SINCE)
    bob = cluster.phone("bob", "edge-2")
    gruu = temporary(aor=aor) if temporary_one else GRUUS.public(aor, DESK)
    invite(alice, f"sip:{BOB}", f"Contact: <{gruu}>", contact=False)
    received = bob.got_request("INVITE")
    assert contact(received) == gruu
    bob.respond(received, 200)
    alice.got_response(200)
    from_, to = f"{received.first('to')};tag=to-bob", received.first("from")
    bob.request("BYE", gruu, from_=from_, to=to, routes=received.values("record-route"), cseq=7)
    assert alice.got_request("BYE").uri == alice.contact


def test_n15_a_caller_whose_contact_is_anothers_gruu_is_403(phones: tuple[Cluster, Phone, Phone, Phone]) -> None:
    _, alice, desk, _ = phones
    for number, gruu in enumerate((PUBLIC, temporary())):
        invite(alice, f"sip:{BOB}", f"Contact: <{gruu}>", contact=False, call_id=f"call-{number}")
        alice.got_response(403)
    assert not desk.inbox


def test_r37_what_is_told_of_a_call_to_a_temporary_gruu_has_it_only_as_it_was_dialled(
    phones: tuple[Cluster, Phone, Phone, Phone],
) -> None:
    cluster, alice, desk, _ = phones
    gruu = temporary()
    invite(alice, gruu)
    desk.respond(desk.got_request("INVITE"), 486)
    attempted = next(step for e in cluster.events for step in steps(e) if isinstance(step, CallAttempted))
    assert (attempted.dialled, attempted.callee, attempted.targets) == (gruu, BOB, (desk.contact,))
