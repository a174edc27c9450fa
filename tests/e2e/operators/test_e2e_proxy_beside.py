"""A real Kamailio beside Ramal that reads `location`, set up as docs/migration.md says: it calls our phones by Path.

It sends everything to the first edge; the phones are at both.
"""

import contextlib
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from edge.core.flow import host_port
from tests.e2e.conftest import CALLERS, DOMAIN, PEER, System, user
from tests.kit.kamailio import beside
from tests.kit.phone import SDP, Call, Phone
from tests.kit.waiting import until
from tests.kit.wire import Address, UdpLink

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
BOB = CALLERS[41]
DOCUMENT = Path(__file__).parents[3] / "docs" / "migration.md"
PASSWORD = "its password"
"""As the document has it."""


def block(kind: str) -> str:
    """The block of this kind in the document's section about a proxy beside Ramal."""
    section = DOCUMENT.read_text().partition("\n## A proxy beside Ramal")[2]
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def theirs(stack: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Where Kamailio is, on a view of our table, by an account that may read it and nothing else."""
    port, database = int(stack.environ["RAMAL_MYSQL_PORT"]), stack.environ.get("RAMAL_MYSQL_DATABASE", "ramal")
    # What the server's administrator does.
    connection = pymysql.connect(unix_socket=f"\0ramal-{port}", user="root", autocommit=True)
    with connection, connection.cursor() as cursor:
        for statement in filter(str.strip, block("sql").replace("ramal.location", f"{database}.location").split(";\n")):
            cursor.execute(statement)
        try:
            parameters = block("text").replace(f"{PASSWORD}@192.0.2.40", f"{PASSWORD}@127.0.0.1:{port}")
            directory = tmp_path_factory.mktemp("beside")
            with beside(directory, PEER, parameters) as address:
                yield address
            # At its end it tries to delete what has ended, and may not.
            said = (directory / "kamailio.log").read_text().partition("Thank you for flying")[0]
            assert not re.findall("(?:ERROR|WARNING|CRITICAL).*", said)
        finally:
            cursor.execute("DROP USER kamailio")
            cursor.execute("DROP DATABASE kamailio")


@pytest.fixture
def trunk(theirs: Address) -> Iterator[Phone]:
    """Who calls by way of Kamailio."""
    with Phone(UdpLink(theirs), "+554837211000", "", "carrier.example") as phone:
        yield phone


def calls(phone: Phone, uri: str, *rows: str) -> Call:
    """An INVITE that nobody challenges."""
    call = Call(phone, secrets.token_hex(8), f"<{phone.aor}>;tag={secrets.token_hex(4)}", f"<{uri}>", uri)
    call.request("INVITE", *rows, body=SDP)
    return call


@contextlib.contextmanager
def registered(stack: System, edge: int, transport: str) -> Iterator[Phone]:
    with stack.phone(BOB, edge=edge, transport=transport) as phone:
        phone.register()
        yield phone
        phone.deregister()


@pytest.mark.parametrize(("edge", "transport"), [(0, "ws"), (1, "wss"), (1, "udp"), (1, "tcp"), (0, "tls")])
def test_a_kamailio_that_reads_location_calls_a_phone_at_whichever_edge_and_either_hangs_up(
    stack: System, trunk: Phone, edge: int, transport: str
) -> None:
    with registered(stack, edge, transport) as bob:
        for callee_ends in (True, False):
            call = calls(trunk, bob.aor)
            incoming = bob.incoming()
            assert incoming.received.uri == bob.contact
            assert incoming.received.all("route") == []
            incoming.respond(180)
            call.hears(180)
            incoming.respond(200, body=SDP)
            call.hears(200)
            call.ack()
            incoming.gets("ACK")
            last, first = (incoming, call) if callee_ends else (call, incoming)
            last.request("BYE")
            first.gets("BYE")
            first.respond(200)
            last.hears(200)
        assert bob.requests_from <= {stack.at[edge][transport]}
    found: list[dict[str, Any]] = []

    def ended() -> bool:
        done = stack.ramal("call", call.call_id, "--json", check=False)
        found[:] = json.loads(done.stdout) if done.returncode == 0 else []
        return bool(found and found[0]["ended_ms"])

    until(ended, "the call has a record")
    assert (found[0]["callee"], found[0]["outcome"], found[0]["hung_up"]) == (
        f"{bob.user}@{DOMAIN}",
        "answered",
        "caller",
    )


def test_its_call_can_be_cancelled_and_refused(stack: System, trunk: Phone) -> None:
    with registered(stack, 1, "wss") as bob:
        call = calls(trunk, bob.aor)
        incoming = bob.incoming()
        incoming.respond(180)
        call.hears(180)
        call.cancel()
        call.hears(200, method="CANCEL")
        bob.respond(incoming.gets("CANCEL"), 200)
        incoming.respond(487)
        call.hears(487)
        call.ack()
        call = calls(trunk, bob.aor)
        incoming = bob.incoming()
        incoming.respond(486)
        call.hears(486)
        call.ack()


def test_all_phones_of_a_user_ring_and_when_one_answers_the_others_are_cancelled(stack: System, trunk: Phone) -> None:
    with registered(stack, 0, "wss") as bob, registered(stack, 1, "udp") as desk:
        call = calls(trunk, bob.aor)
        here, there = bob.incoming(), desk.incoming()
        assert (here.received.uri, there.received.uri) == (bob.contact, desk.contact)
        here.respond(180)
        there.respond(180)
        call.hears(180)
        there.respond(200, body=SDP)
        call.hears(200)
        call.ack()
        there.gets("ACK")
        bob.respond(here.gets("CANCEL"), 200)
        here.respond(487)
        here.gets("ACK")
        call.request("BYE")
        there.gets("BYE")
        there.respond(200)
        call.hears(200)


def test_who_has_gone_is_not_found_there_either_at_once(stack: System, trunk: Phone) -> None:
    with registered(stack, 1, "ws") as bob:
        pass
    calls(trunk, bob.aor).hears(404)
    # Whose connection closes is called no more as soon as the log has it.
    with stack.phone(BOB, edge=1, transport="ws") as bob:
        bob.register()
    until(lambda: not stack.located(BOB, edge=1), "the binding ends with the connection")
    calls(trunk, bob.aor).hears(404)


def test_n05_the_path_of_the_table_is_no_way_in_for_others_and_a_changed_one_for_nobody(
    stack: System, trunk: Phone, theirs: Address
) -> None:
    del theirs
    with registered(stack, 1, "ws") as bob:
        port = int(stack.environ["RAMAL_MYSQL_PORT"])
        connection = pymysql.connect(host="127.0.0.1", port=port, user="kamailio", password=PASSWORD)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT path FROM kamailio.location WHERE username = %s", (user(BOB),))
            ((path,),) = cursor.fetchall()
            with pytest.raises(pymysql.err.OperationalError, match="denied"):
                cursor.execute("DELETE FROM kamailio.location")
        edge = host_port(*stack.edges[0])
        assert path.endswith(f"@{edge};lr>")
        # A phone that has learnt it somehow.
        with Phone(UdpLink(stack.edges[0]), "eve", "", DOMAIN) as eve:
            call = calls(eve, bob.contact, f"Route: {path}")
            call.hears(403)
            call.ack()
        token = path.partition(":")[2].partition("@")[0]
        for changed in (token[:12] + "aaaa" + token[16:], "a" * len(token)):
            forged = f"X-Path: {path.replace(token, changed)}"
            call = calls(trunk, f"sip:changed@{DOMAIN}", forged, f"X-Edge: sip:{edge}")
            call.hears(403)
            call.ack()
        bob.quiet()
