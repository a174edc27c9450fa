"""What is told of calls between real phones, on both systems: open, answered, missed (CHECKLIST C04 to C11)."""

import json
import time
from typing import Any

import pytest

from tests.e2e.conftest import CALLERS, DOMAIN, System, user
from tests.kit.phone import SDP, Call, Phone

pytestmark = pytest.mark.e2e

ALICE, BOB = CALLERS[12], CALLERS[13]
NEVER = CALLERS[58]
"""Whose phone nobody has ever switched on."""
PATIENCE = 20.0


def until(system: System, *words: str, wanted: Any) -> Any:
    """What a question answers, once it is as wanted: cdr follows the calls by a moment."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = system.ramal(*words, "--json", check=False)
        answer = json.loads(done.stdout) if done.returncode == 0 and done.stdout else None
        if answer is not None and wanted(answer):
            return answer
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.2)


def established(alice: Phone, bob: Phone) -> tuple[Call, Call]:
    call = alice.invite(bob.aor)
    incoming = bob.incoming()
    incoming.respond(180)
    call.hears(180)
    incoming.respond(200, body=SDP)
    call.hears(200)
    call.ack()
    incoming.gets("ACK")
    return call, incoming


def test_a_call_is_open_while_it_stands_and_one_record_when_it_has_ended(system: System) -> None:
    last = len(system.at) - 1
    with system.phone(ALICE, edge=last) as alice, system.phone(BOB, transport="tcp") as bob:
        alice.register()
        bob.register()
        call, incoming = established(alice, bob)
        id_ = call.call_id
        until(system, "calls", wanted=lambda found: id_ in [one["call_id"] for one in found])

        incoming.request("BYE")
        call.respond(200, to=call.gets("BYE"))
        incoming.hears(200)

        record = until(system, "call", id_, wanted=lambda found: found and found[0].get("ended_ms"))[0]
        assert (record["caller"], record["callee"]) == (f"{user(ALICE)}@{DOMAIN}", f"{user(BOB)}@{DOMAIN}")
        assert (record["code"], record["hung_up"]) == (200, "callee")
        assert "answered" in system.ramal("explain", id_).stdout
        until(system, "calls", wanted=lambda found: all(one["call_id"] != id_ for one in found))
        alice.deregister()
        bob.deregister()


def test_a_call_that_is_given_up_is_missed_and_the_audit_finds_no_difference(system: System) -> None:
    with system.phone(ALICE) as alice, system.phone(BOB, transport="tcp") as bob:
        alice.register()
        bob.register()
        call = alice.invite(bob.aor)
        incoming = bob.incoming()
        incoming.respond(180)
        call.hears(180)
        call.cancel()
        call.hears(200, method="CANCEL")
        incoming.respond(200, to=incoming.gets("CANCEL"))
        incoming.respond(487)
        call.hears(487)

        until(
            system,
            "missed",
            f"{user(BOB)}@{DOMAIN}",
            wanted=lambda found: any(one["callid"] == call.call_id for one in found),
        )
        assert "0 differences" in system.ramal("audit-cdrs").stdout
        alice.deregister()
        bob.deregister()


def test_a_call_to_a_user_who_has_never_registered_is_missed(system: System) -> None:
    """No table knows of a user of a directory or a file before the first REGISTER."""
    with system.phone(ALICE) as alice:
        alice.register()
        callee = f"{user(NEVER)}@{DOMAIN}"
        call = alice.invite(f"sip:{callee}")
        call.hears(480)
        call.ack()

        # Other tests may have called him, too.
        until(system, "missed", callee, wanted=lambda all_: call.call_id in [one["callid"] for one in all_])
        assert f"That is {callee}, of whom no binding was seen." in system.ramal("explain", call.call_id).stdout
        alice.deregister()
