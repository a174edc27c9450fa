"""What edges tell of calls, from the messages that pass: who, where to, how it ended (CHECKLIST C03 to C11)."""

import msgspec
import pytest

from events.calls import Branch, BranchStarted, CallEvent, event_id, steps
from tests.kit.calls import DOMAIN, Cluster, Phone
from tests.kit.dialogs import invite
from tests.unit.edge.proxy.test_target_refresh import Called

OK, BUSY, CANCELLED = 200, 486, 487
BOB = f"sip:bob@{DOMAIN}"


def kinds(cluster: Cluster) -> list[str]:
    return [type(event).__name__ for event in cluster.events]


def fields(cluster: Cluster, kind: str) -> dict[str, object]:
    """Those of the one event of this kind."""
    [event] = [event for event in cluster.events if type(event).__name__ == kind]
    return msgspec.structs.asdict(event)


@pytest.fixture
def phones() -> tuple[Cluster, Phone, Phone]:
    cluster = Cluster()
    return cluster, cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")


def test_c04_c05_a_call_that_is_answered_and_ended_is_told_step_by_step(phones: tuple[Cluster, Phone, Phone]) -> None:
    cluster, alice, bob = phones
    call = Called(cluster, alice, bob)
    assert [kind for kind in kinds(cluster) if not kind.startswith("Branch")] == [
        "CallAttempted",
        "CallRinging",
        "CallAnswered",
    ]
    call.passes(bob, "BYE", alice)

    attempted = fields(cluster, "CallAttempted")
    answered = fields(cluster, "CallAnswered")
    ended = fields(cluster, "CallEnded")
    assert (attempted["caller"], attempted["callee"]) == (f"alice@{DOMAIN}", f"bob@{DOMAIN}")
    assert attempted["transport"] == "udp"
    assert answered["transport"] == "tcp"
    assert answered["to_tag"] == ended["to_tag"] != ""
    assert (ended["by"], ended["cseq"]) == ("callee", attempted["cseq"])
    assert ended["begun"] == pytest.approx(attempted["at"], abs=1000)


def test_c03_a_request_that_is_challenged_is_no_call(phones: tuple[Cluster, Phone, Phone]) -> None:
    cluster, alice, bob = phones
    alice.request("INVITE", bob.contact)
    cluster.pump()
    assert cluster.events == []


@pytest.mark.parametrize("status", [BUSY, 603, 480])
def test_c09_a_phone_that_declines_is_told_with_its_code_and_branch(
    phones: tuple[Cluster, Phone, Phone], status: int
) -> None:
    cluster, alice, bob = phones
    invite(alice)
    bob.respond(bob.got_request("INVITE"), status)
    alice.got_response(status)

    assert kinds(cluster) == ["CallAttempted", "CallFailed"]
    failed, attempted = fields(cluster, "CallFailed"), fields(cluster, "CallAttempted")
    assert isinstance(attempted["first"], Branch)
    assert (failed["code"], failed["branch"]) == (status, attempted["first"].branch)


def test_c10_who_is_not_registered_is_a_failed_call_without_a_branch() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    cluster.phone("bob", register=False)
    invite(alice)
    alice.got_response(480)

    assert kinds(cluster) == ["CallAttempted", "CallFailed"]
    assert fields(cluster, "CallAttempted")["callee"] == f"bob@{DOMAIN}"


@pytest.mark.parametrize("dialled", ["bob", "2802"])
def test_c10_a_user_who_has_never_registered_is_a_callee_of_ours(dialled: str) -> None:
    """No table has a row of who is in a directory or a file alone: authsvc says that it is a user, or whose number."""
    cluster = Cluster()
    alice = cluster.phone("alice")
    cluster.numbers[f"{dialled}@{DOMAIN}"] = f"bob@{DOMAIN}"
    invite(alice, uri=f"sip:{dialled}@{DOMAIN}")
    alice.got_response(480)

    assert fields(cluster, "CallAttempted")["callee"] == f"bob@{DOMAIN}"


def test_c10_who_is_nobody_of_ours_is_no_callee() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    invite(alice, uri=f"sip:nobody@{DOMAIN}")
    alice.got_response(404)

    assert fields(cluster, "CallAttempted")["callee"] == ""


def test_c05_a_bye_that_comes_again_has_the_same_id(phones: tuple[Cluster, Phone, Phone]) -> None:
    cluster, alice, bob = phones
    call = Called(cluster, alice, bob)
    call.passes(alice, "BYE", bob)
    call.passes(alice, "BYE", bob)
    ends: list[CallEvent] = [event for event in cluster.events if type(event).__name__ == "CallEnded"]

    assert len({event_id(event) for event in ends}) == 1


def test_c08_of_five_that_ring_the_one_that_answers_is_named() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    bobs = [cluster.phone("bob", "edge-2", "tcp") for _ in range(5)]
    invite(alice)
    requests = [bob.got_request("INVITE") for bob in bobs]
    bobs[3].respond(requests[3], OK)
    alice.got_response(OK)

    told = [type(step) for event in cluster.events for step in steps(event)]
    assert told.count(BranchStarted) == 5
    assert fields(cluster, "CallAnswered")["contact"] == bobs[3].contact


def test_e21_of_more_targets_than_a_record_names_it_says_how_many_more() -> None:
    cluster = Cluster()
    alice, *bobs = cluster.phone("alice"), *(cluster.phone("bob", "edge-2", "tcp") for _ in range(19))
    invite(alice)
    attempted = fields(cluster, "CallAttempted")
    assert attempted["targets"] == tuple(bob.contact for bob in bobs[:16])
    assert attempted["more_targets"] == 3


def test_c09_a_call_that_the_caller_gives_up_is_cancelled(phones: tuple[Cluster, Phone, Phone]) -> None:
    cluster, alice, bob = phones
    branch = invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    alice.request("CANCEL", BOB, branch=branch, contact=False)
    alice.got_response(OK)
    bob.respond(bob.got_request("CANCEL"), OK)
    bob.respond(received, CANCELLED)
    alice.got_response(CANCELLED)

    assert [kind for kind in kinds(cluster) if not kind.startswith("Branch")] == [
        "CallAttempted",
        "CallRinging",
        "CallCancelled",
    ]
