"""The operators' questions, on both systems while they run."""

import json
import time
from datetime import datetime

import pytest

from tests.e2e.conftest import DOMAIN, System, user
from tests.kit.phone import SDP, Phone
from tests.kit.wire import Closed, UdpLink

pytestmark = pytest.mark.e2e

FIRST = 37
"""Users of this file alone."""


def test_show_history_and_at_tell_the_same(system: System) -> None:
    aor = f"{user(FIRST)}@{DOMAIN}"
    with system.phone(FIRST) as phone:
        phone.register()
        shown = json.loads(system.ramal("show", f"sip:{aor}", "--json").stdout)
        during = datetime.now().astimezone().isoformat()
        assert [binding["contact"] for binding in shown] == [phone.contact]
        assert shown[0]["granted"] == 300
        assert phone.contact in system.ramal("at", during, aor).stdout
        phone.deregister()

    assert f"{aor} is not registered" in system.ramal("show", aor).stdout
    assert f"unregistered by {aor}" in system.ramal("history", aor).stdout
    after = datetime.now().astimezone().isoformat()
    assert f"{aor} was not registered" in system.ramal("at", after, aor).stdout
    assert phone.contact in system.ramal("at", during).stdout


def test_what_a_phone_says_of_itself_is_shown_on_a_terminal_and_never_obeyed(system: System) -> None:
    """Its User-Agent and Contact are whatever it likes: escapes, C1 controls, marks that turn a line round."""
    aor = f"{user(FIRST)}@{DOMAIN}"
    with system.phone(FIRST) as phone:
        contact = f"sip:turn\u202eed@{phone.link.local[0]}:{phone.link.local[1]}"
        agent = "\x1b]0;owned\x07\x1b[2J \u009b31m \u2028 Snom/1"
        assert phone.registers(f"Contact: <{contact}>", f"User-Agent: {agent}", "Expires: 300").status == 200
        during = datetime.now().astimezone().isoformat()
        top = ("top", "--once") if system.run_dir is None else ("top", "--once", "--run-dir", str(system.run_dir))
        for words in (("show", aor), ("show",), ("at", during, aor), ("history", aor), top):
            shown = system.ramal(*words).stdout
            assert not set("\x1b\x07\u009b\u2028\u202e") & set(shown), words
        assert "?]0;owned??[2J ?31m ? Snom/1" in system.ramal("show", aor).stdout
        assert contact.replace("\u202e", "?") in system.ramal("show", aor).stdout
        [exact] = json.loads(system.ramal("show", aor, "--json").stdout)
        assert (exact["contact"], exact["user_agent"]) == (contact, agent)
        phone.deregister()


def test_why_a_phone_cannot_log_in_is_told_of_its_user(system: System) -> None:
    """Wrong passwords, names that are nobody's, and silence: what each means for whoever looks."""
    name = user(FIRST + 2)
    strangers = (Phone(UdpLink(system.edges[0]), who, "mistyped", DOMAIN) for who in (name, "nobody-here"))
    for stranger in strangers:
        with stranger as phone:
            assert phone.registers(f"Contact: <{phone.contact}>", "Expires: 300").status == 401

    wrong = system.ramal("user", "show", name).stdout
    unknown = json.loads(system.ramal("user", "show", "nobody-here", "--json").stdout)["failed_logins"]
    silent = system.ramal("user", "show", user(FIRST + 4)).stdout

    assert "wrong password" in wrong
    assert "1 time" in wrong
    assert [(each["reason"], each["times"], each["user"]) for each in unknown] == [
        ("unknown user", 1, f"nobody-here@{DOMAIN}")
    ]
    assert "No failed log-in in 24 hours" in silent


def test_an_operators_removal_goes_through_the_log_and_is_on_record(system: System) -> None:
    aor = f"{user(FIRST + 1)}@{DOMAIN}"
    with system.phone(FIRST + 1) as phone:
        phone.register()
        other = f"sip:{phone.user}@192.0.2.9"
        phone.register(f"<{other}>")

        removed = system.ramal("remove", aor, other)

        assert f"unregistered {other}" in removed.stdout
        assert system.located(FIRST + 1) == [phone.contact]
        assert "has 0 contacts" in system.ramal("remove", aor).stdout
        assert system.located(FIRST + 1) == []
        assert "Nothing was removed" in system.ramal("remove", aor).stdout
    on_record = 0
    with system.following("tail", "audit", "--from-beginning") as lines:  # others' wrong passwords stand there too
        while on_record < 3:
            line = json.loads(next(lines))
            on_record += line["type"] == "ramal.ContactsRemoved" and line["value"]["aor"] == aor


@pytest.mark.parametrize("transport", ["tcp", "tls", "ws", "wss"])
def test_a_kicked_phone_loses_its_connection_and_registers_again(system: System, transport: str) -> None:
    number, edge = FIRST + 2, len(system.at) - 1
    with system.phone(number, edge=edge, transport=transport) as phone, system.phone(number) as other:
        phone.register()
        other.register()

        kicked = system.ramal("kick", phone.aor, phone.contact)

        assert f"deactivated {phone.contact}" in kicked.stdout
        assert system.located(number) == [other.contact]
        with pytest.raises(Closed):
            phone.link.receive(time.monotonic() + 5)
        with system.phone(number, edge=edge, transport=transport) as again:
            again.register()
            assert sorted(system.located(number)) == sorted([again.contact, other.contact])
            assert "deactivated by operator:" in system.ramal("history", phone.aor).stdout
            system.ramal("kick", phone.aor)
            with pytest.raises(Closed):
                again.link.receive(time.monotonic() + 5)
            assert other.query().status == 200  # there is no connection to close
        assert system.located(number) == []


def test_a_kick_names_the_other_lines_of_the_connection_that_it_closes(system: System) -> None:
    with system.phone(FIRST, transport="tcp") as phone, system.phone(FIRST + 1) as apart:
        other = system.line(FIRST + 2, phone)
        apart.register()
        for line in (phone, other):
            line.register()

        kicked = system.ramal("kick", phone.aor).stdout

        assert f"Registered by the same connection, and again when it is closed: {other.aor[4:]}\n" in kicked
        with pytest.raises(Closed):
            phone.link.receive(time.monotonic() + 5)
        until = time.monotonic() + 10
        while system.located(FIRST + 2):
            assert time.monotonic() < until
        assert system.located(FIRST + 1) == [apart.contact]
        assert "Registered by the same" not in system.ramal("kick", apart.aor).stdout


def test_a_call_of_a_kicked_phone_goes_on_where_its_contact_is_registered_again(system: System) -> None:
    edge = len(system.at) - 1
    with system.phone(FIRST) as alice, system.phone(FIRST + 2, edge=edge, transport="ws") as bob:
        alice.register()
        bob.register()
        call = alice.invite(bob.aor)
        incoming = bob.incoming()
        incoming.respond(200, body=SDP)
        call.hears(200)
        call.ack()
        incoming.gets("ACK")

        system.ramal("kick", bob.aor)

        with pytest.raises(Closed):
            bob.link.receive(time.monotonic() + 5)
        with system.phone(FIRST + 2, edge=edge, transport="ws") as again:
            assert again.register(f"<{bob.contact}>").status == 200
            call.request("BYE")
            bye = again.next(lambda message: message.start.startswith("BYE "), "the BYE")
            again.respond(bye, 200)
            call.hears(200, method="BYE")


def test_tail_shows_records_but_no_credentials(system: System) -> None:
    with system.phone(FIRST) as phone:
        phone.register()
    lines = [
        json.loads(line)
        for line in system.ramal("tail", "auth.commands", "--from-beginning", "--count", "1").stdout.splitlines()
    ]

    assert [line["type"] for line in lines] == ["ramal.Authenticate"]
    digest = lines[0]["value"]["digest"]
    assert (digest["response"], digest["nonce"], digest["cnonce"]) == ("***", "***", "***")


def test_rebuild_while_serving_finds_equal_checksums(system: System) -> None:
    with system.phone(FIRST + 2) as phone:
        phone.register()
        rebuilt = system.ramal("rebuild").stdout
        assert "equal checksums" in rebuilt
        assert system.located(FIRST + 2) == [phone.contact]
        assert phone.register().status == 200


def test_topics_and_migrate_find_all_in_order(system: System) -> None:
    assert "All topics are there" in system.ramal("topics").stdout
    assert "up to date" in system.ramal("migrate").stdout


def test_a_user_is_added_registers_and_is_removed(system: System) -> None:
    system.ramal("user", "add", "carol", "--domain", DOMAIN, "--password-stdin", given="s3cret of carol\n")
    assert f"carol@{DOMAIN}" in system.ramal("user", "list").stdout.split()

    with Phone(UdpLink(system.edges[0]), "carol", "s3cret of carol", DOMAIN) as phone:
        assert phone.register().status == 200

    system.ramal("user", "remove", "carol", "--domain", DOMAIN)
    assert f"carol@{DOMAIN}" not in system.ramal("user", "list").stdout.split()
    assert system.ramal("user", "remove", "carol", "--domain", DOMAIN, check=False).returncode == 2
