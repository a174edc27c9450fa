"""What an attacker with an account of his own tries, on both systems: hijacks (S11) and injections (S06)."""

import json
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import CALLERS, DOMAIN, System, user
from tests.kit.phone import Phone, answers
from tests.kit.sip import request

pytestmark = pytest.mark.e2e

MALLORY, BOB = CALLERS[40], CALLERS[41]
INJECTIONS = (
    "' OR '1'='1",
    "x'; DROP TABLE location; --",
    'x"; DELETE FROM location_history; #',
    "\\'; UPDATE subscriber SET ha1='' WHERE 1=1; -- ",
    "%27%20OR%201=1--",
    "*)(uid=*))(|(uid=*",
    "*)(objectClass=*",
    "admin)(&)",
    "${jndi:ldap://127.0.0.1/x}",
    "{{7*7}}",
    '"}\\n{"level":"error","message":"forged"}',
    "a\\u0000b",
    "%00%0d%0aContact:%20*",
    "$(id)`id`|id;id",
    "../../etc/passwd",
    "<script>alert(1)</script>",
)


@pytest.fixture
def mallory(system: System) -> Iterator[Phone]:
    with system.phone(MALLORY) as caller:
        caller.register()
        yield caller
        caller.deregister()


@pytest.fixture
def bob(system: System) -> Iterator[Phone]:
    with system.phone(BOB, edge=len(system.edges) - 1) as caller:
        caller.register()
        yield caller
        caller.deregister()


def sends(caller: Phone, method: str, uri: str, *rows: str) -> int:
    """The status of the final response to a request with these rows and no others but Via and Max-Forwards."""
    branch = f"z9hG4bK{secrets.token_hex(8)}"
    lines = [f"Via: {caller.via(branch)}", "Max-Forwards: 70", *rows]
    caller.send(request(method, uri, lines, b""))
    while (answer := caller.next(partial(answers, branch), f"an answer to {method}")).status < 200:
        continue
    return answer.status


def test_s11_nobody_gets_hold_of_anothers_registration_and_the_audit_has_who_tried(
    system: System, mallory: Phone, bob: Phone
) -> None:
    uri, his = f"sip:{DOMAIN}", f"<{bob.aor}>"
    theirs = system.located(BOB)
    head = [f"Call-ID: {secrets.token_hex(8)}", f"From: <{mallory.aor}>;tag=m", f"Contact: <{mallory.contact}>"]
    anothers = sends(
        mallory, "REGISTER", uri, f"To: {his}", "CSeq: 1 REGISTER", *head, *mallory.credentials("REGISTER", uri)
    )
    by_from = sends(
        mallory,
        "REGISTER",
        uri,
        f"To: {his}",
        f"From: {his};tag=m",
        "CSeq: 2 REGISTER",
        "Contact: *",
        "Expires: 0",
        f"Call-ID: {secrets.token_hex(8)}",
        *mallory.credentials("REGISTER", uri),
    )
    assert (anothers, by_from) == (403, 403)
    star = ["Contact: *", "Expires: 0", f"From: {his};tag=m", f"Call-ID: {secrets.token_hex(8)}", "CSeq: 3 REGISTER"]
    assert sends(mallory, "REGISTER", uri, f"To: {his}", *star) == 401
    # bob's own credentials, overheard: another Contact with the same response, nonce and count
    overheard = bob.credentials("REGISTER", uri)
    again = [f"To: {his}", f"From: {his};tag=b", f"Call-ID: {bob.registration}"]
    assert sends(bob, "REGISTER", uri, *again, f"CSeq: {bob.cseq + 1} REGISTER", *overheard) == 200
    bob.cseq += 1
    stolen = [*again[:2], f"Call-ID: {secrets.token_hex(8)}", "CSeq: 9 REGISTER", f"Contact: <{mallory.contact}>"]
    assert sends(mallory, "REGISTER", uri, *stolen, *overheard) in (401, 403)
    assert system.located(BOB) == theirs
    with system.following("tail", "audit", "--from-beginning") as lines:
        assert any(user(MALLORY) in line and user(BOB) in line for line in lines)


def test_s06_what_is_typed_into_headers_is_data_everywhere(system: System, mallory: Phone, bob: Phone) -> None:
    uri, his = f"sip:{DOMAIN}", f"<{mallory.aor}>"
    theirs = system.located(BOB)
    seen: set[int] = set()
    for number, payload in enumerate(INJECTIONS):
        quoted = payload.replace("\\", "\\\\").replace('"', '\\"')
        call_id = f"{number}-{secrets.token_hex(4)}"
        rows = [
            f"To: {his}",
            f'From: "{quoted}" {his};tag=m',
            f"Call-ID: {call_id}",
            f"CSeq: {number + 1} REGISTER",
            f"User-Agent: {payload}",
            f"Subject: {payload}",
            f"Organization: {payload}",
            "Expires: 60",
        ]
        own = mallory.credentials("REGISTER", uri)
        contact = f'Contact: "{quoted}" <sip:m@127.0.0.1>'
        assert sends(mallory, "REGISTER", uri, *rows, contact, *own) == 200, payload
        forged = [row.replace(f'username="{user(MALLORY)}"', f'username="{quoted}"') for row in own]
        seen.add(sends(mallory, "REGISTER", uri, *rows, "Contact: *", *forged))
        seen.add(sends(mallory, "REGISTER", uri, *rows, f"Contact: <sip:{payload}@127.0.0.1>"))
        seen.add(sends(mallory, "OPTIONS", f"sip:{DOMAIN}", *rows[:3], f"CSeq: {number + 1} OPTIONS", *rows[4:]))
        to_user = f"sip:{payload.replace(' ', '%20')}@{DOMAIN}"
        seen.add(sends(mallory, "MESSAGE", to_user, *rows[:3], f"CSeq: {number + 1} MESSAGE", *rows[4:]))
    assert seen <= {200, 400, 401, 403, 404, 407}
    assert system.located(BOB) == theirs
    contacts = {row["contact"] for row in json.loads(system.ramal("show", mallory.aor, "--json").stdout)}
    assert contacts == {mallory.contact, "sip:m@127.0.0.1"}
    for log in logs_of_services(system):
        for line in log.read_text().splitlines():
            assert json.loads(line).get("message") != "forged"


def logs_of_services(system: System) -> list[Path]:
    """Of a stack: the logs of our own processes."""
    if system.run_dir is None:
        return []
    processes = system.described()["processes"]
    return [
        Path(each["log"]) for name, each in processes.items() if name.startswith(("edge", "auth", "regis", "locat"))
    ]
