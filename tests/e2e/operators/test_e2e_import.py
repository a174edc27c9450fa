"""`ramal import kamailio`: from a real Kamailio, filled by its own commands and by phones, into a running stack.

Its users log in with their passwords, its phones are called where they are, its calls are in our tables; importing
again changes nothing, and a dry run changes nothing at all.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import CALLERS, DOMAIN, System
from tests.kit.kamailio import Kamailio, kamailio
from tests.kit.phone import SDP, Phone
from tests.kit.wire import UdpLink

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
USERS = ("dave", "erin", "nadia")
DATABASE = "kamailio_before"
Tables = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def before(stack: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kamailio, dict[str, Phone]]]:
    """A Kamailio with three users, two domains, an alias, a group, two calls; and the users' phones."""
    environ = stack.environ
    password = Path(environ["RAMAL_MYSQL_PASSWORD_FILE"]).read_text().strip()
    server = (environ["RAMAL_MYSQL_HOST"], int(environ["RAMAL_MYSQL_PORT"]), environ["RAMAL_MYSQL_USER"], password)
    with kamailio(tmp_path_factory.mktemp("kamailio"), *server, DATABASE) as running:
        for user in USERS:
            running.kamctl("add", f"{user}@{DOMAIN}", f"secret-{user}")
        running.kamctl("add", "zoe@elsewhere.test", "secret-zoe")
        running.kamctl("alias_db", "add", f"reception@{DOMAIN}", f"dave@{DOMAIN}")
        running.kamctl("domain", "add", DOMAIN)
        running.kamctl("domain", "add", "elsewhere.test")
        running.kamctl("acl", "grant", f"dave@{DOMAIN}", "long")
        phones = {user: Phone(UdpLink(running.address), user, f"secret-{user}", DOMAIN) for user in USERS}
        # As a phone behind NAT names itself; this Kamailio keeps where it came from for her.
        phones["nadia"].named = "sip:nadia@10.99.0.7:5060"
        for phone in phones.values():
            phone.register()
        call = phones["dave"].invite(phones["erin"].aor)
        incoming = phones["erin"].incoming()
        incoming.respond(180)
        call.hears(180)
        incoming.respond(200, body=SDP)
        call.hears(200)
        call.ack()
        incoming.gets("ACK")
        incoming.request("BYE")
        call.gets("BYE")
        call.respond(200)
        incoming.hears(200)
        refused = phones["dave"].invite(phones["erin"].aor)
        incoming = phones["erin"].incoming()
        incoming.respond(486)
        refused.hears(486)
        running.wait_for("SELECT id FROM acc", 3)
        yield running, phones
        for phone in phones.values():
            phone.close()


def imported(stack: System, *words: str) -> Tables:
    """What `ramal import` says, by table."""
    environ = stack.environ
    url = (
        f"mysql://{environ['RAMAL_MYSQL_USER']}@{environ['RAMAL_MYSQL_HOST']}:{environ['RAMAL_MYSQL_PORT']}/{DATABASE}"
    )
    password = Path(environ["RAMAL_MYSQL_PASSWORD_FILE"]).read_text()
    done = stack.ramal("import", "kamailio", "--mysql", url, "--password-stdin", "--json", *words, given=password)
    return {each["table"]: each for each in json.loads(done.stdout)}


def counts(tables: Tables, kind: str) -> dict[str, int]:
    return {name: table[kind] for name, table in tables.items()}


def until(wanted: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := wanted()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


NEW = {"domain": 0, "subscriber": 3, "dbaliases": 1, "grp": 1, "location": 2, "acc": 3}


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    stack: System, before: tuple[Kamailio, dict[str, Phone]]
) -> None:
    for _ in range(2):
        told = imported(stack, "--dry-run")
        assert counts(told, "new") == NEW
    assert list(told["subscriber"]["reasons"]) == ["the domain elsewhere.test is not served"]
    assert told["subscriber"]["reasons"]["the domain elsewhere.test is not served"]["examples"] == [
        "zoe@elsewhere.test"
    ]
    assert "RAMAL_DOMAINS='{\"elsewhere.test\": {}}'" in told["domain"]["notes"][0]
    assert list(told["location"]["reasons"]) == ["it is behind NAT, whose mapping only the other proxy has"]
    assert "dave" not in stack.ramal("user", "list").stdout


def test_users_log_in_phones_are_called_and_calls_are_on_record_after_an_import_that_can_be_repeated(
    stack: System, before: tuple[Kamailio, dict[str, Phone]]
) -> None:
    theirs, phones = before
    assert counts(imported(stack), "new") == NEW

    # The phones are still at Kamailio; who calls them at Ramal reaches them where they are.
    located = {row["aor"]: row for row in json.loads(stack.ramal("show", "--json").stdout)}
    assert phones["dave"].contact in json.dumps(located[f"dave@{DOMAIN}"])
    with stack.phone(CALLERS[0], edge=0) as caller:
        caller.register()
        for called, phone in ((f"sip:erin@{DOMAIN}", phones["erin"]), (f"sip:reception@{DOMAIN}", phones["dave"])):
            call = caller.invite(called)
            incoming = phone.incoming()
            incoming.respond(200, body=SDP)
            call.hears(200)
            call.ack()
            incoming.gets("ACK")
            call.request("BYE")
            incoming.gets("BYE")
            incoming.respond(200)
            call.hears(200)

    # With the password of old, of which Ramal has the HA1 alone.
    with Phone(UdpLink(stack.edges[1]), "nadia", "secret-nadia", DOMAIN) as nadia:
        nadia.register()
        nadia.deregister()

    # Who called whom, who hung up, who was busy: by Kamailio's rows.
    [(call_id,)] = theirs.sql("SELECT DISTINCT callid FROM acc WHERE method = 'BYE'")
    record = until(lambda: json.loads(stack.ramal("call", str(call_id), "--json", check=False).stdout or "[]"))
    [record] = record if isinstance(record, list) else [record]
    assert (record["caller"], record["callee"]) == (f"dave@{DOMAIN}", f"erin@{DOMAIN}")
    assert (record["outcome"], record["hung_up"]) == ("answered", "callee")

    again = imported(stack)
    assert counts(again, "new") == dict.fromkeys(NEW, 0)
    assert counts(again, "changed") == dict.fromkeys(NEW, 0)
    assert counts(again, "same") == NEW | {"domain": 1}


def test_what_changed_there_is_taken_over_and_what_registered_here_is_left_alone(
    stack: System, before: tuple[Kamailio, dict[str, Phone]]
) -> None:
    theirs, phones = before
    imported(stack)
    theirs.kamctl("passwd", f"erin@{DOMAIN}", "another-secret")
    dave = Phone(UdpLink(stack.edges[0]), "dave", "secret-dave", DOMAIN)
    # The same phone, now with us: its Contact is that of Kamailio's row.
    dave.named = phones["dave"].contact
    with dave:
        dave.register()
        ours = stack.ramal("show", f"dave@{DOMAIN}", "--json").stdout
        told = imported(stack)
        assert counts(told, "changed")["subscriber"] == 1
        assert told["location"]["new"] == 0
        assert (
            json.loads(stack.ramal("show", f"dave@{DOMAIN}", "--json").stdout)[0]["path"] == json.loads(ours)[0]["path"]
        )
        dave.deregister()


def test_a_wrong_password_or_address_is_said_in_one_line_without_it(stack: System) -> None:
    environ = stack.environ
    url = f"mysql://ramal:a-wrong-secret@{environ['RAMAL_MYSQL_HOST']}:{environ['RAMAL_MYSQL_PORT']}/{DATABASE}"
    done = stack.ramal("import", "kamailio", "--mysql", url, check=False)
    assert done.returncode == 1
    assert "Access denied" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "a-wrong-secret" not in done.stderr + done.stdout
    done = stack.ramal("import", "kamailio", "--mysql", "postgres://a:a-wrong-secret@b/c", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "ramal: --mysql: it is not like mysql://user@host:3306/kamailio\n"
