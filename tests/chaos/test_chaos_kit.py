"""The chaos suite's own parts against small fakes: a checker that sees nothing would pass everything.

Over 400 lines: each lie that the kit must find is told to it once.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from events.commands import Contact, RegisterContacts, Registration, ReplyTo
from events.registrations import (
    AorState,
    Binding,
    BindingsRecorded,
    Change,
    Claimed,
    Kind,
    RegistrationEvent,
    Seen,
)
from events.wire import encode
from registrar.config import Policy
from registrar.decider import decide
from tests.chaos.invariants import broken_history, broken_promises, contacts_in, differing, lingering, rows_of
from tests.chaos.ledger import Ledger, decode_command
from tests.chaos.load import Intent, Load, Phone, Sent
from tests.chaos.uptime import Uptime

# -- a fake edge -----------------------------------------------------------------------------------------


class FakeEdge(asyncio.DatagramProtocol):
    """Challenges, keeps one set of bindings for all users of all fake edges, and misbehaves on demand."""

    def __init__(self, bindings: dict[str, set[str]]) -> None:
        self.bindings = bindings
        self.uses: list[tuple[str, str]] = []
        self.answer: Callable[[str], int | None] = lambda _: 200
        """What becomes of a request with credentials: 200, another status, or None for silence."""
        self.do_it = True
        """Whether a request that is not answered 200 is done all the same."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, datagram: bytes, address: tuple[str, int]) -> None:
        text = datagram.decode()
        aor = re.search(r"^To: <sip:([^>]+)>", text, re.MULTILINE)
        assert aor
        credentials = re.search(r'nonce="([^"]+)".*nc=(\w+)', text)
        if not credentials:
            self._say(
                text, 401, ['WWW-Authenticate: Digest realm="x.test", nonce="n1", algorithm=MD5, qop="auth"'], address
            )
            return
        self.uses.append((credentials[1], credentials[2]))
        status = self.answer(text)
        if status == 200 or self.do_it:
            self._do(aor[1], text)
        if status is None:
            return
        rows = [f"Contact: <{c}>;expires=300" for c in sorted(self.bindings.get(aor[1], ()))] if status == 200 else []
        self._say(text, status, rows + (["Retry-After: 5"] if status == 503 else []), address)

    def _do(self, aor: str, text: str) -> None:
        kept = self.bindings.setdefault(aor, set())
        if "Contact: *" in text:
            kept.clear()
            return
        contact = re.search(r"^Contact: <([^>]+)>", text, re.MULTILINE)
        assert contact
        (kept.discard if "Expires: 0" in text else kept.add)(contact[1])

    def _say(self, text: str, status: int, rows: list[str], address: tuple[str, int]) -> None:
        repeated = [line for line in text.split("\r\n") if line.startswith(("Via", "From", "To", "Call-ID", "CSeq"))]
        self.transport.sendto("\r\n".join([f"SIP/2.0 {status} x", *repeated, *rows, "", ""]).encode(), address)


@dataclass
class Fakes:
    load: Load
    edges: dict[str, FakeEdge]
    bindings: dict[str, set[str]] = field(default_factory=dict)


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    """Two fake edges over the same bindings, and phones that use them."""
    bindings: dict[str, set[str]] = {}
    edges, addresses = {}, {}
    loop = asyncio.get_running_loop()
    for name in ("edge-1", "edge-2"):
        transport, edge = await loop.create_datagram_endpoint(lambda: FakeEdge(bindings), ("127.0.0.1", 0))
        edges[name] = edge
        addresses[name] = transport.get_extra_info("sockname")
    load = Load("x.test", addresses, [(f"u{n}", f"secret-u{n}") for n in range(20)], patience=0.3)
    load.bound = 0.25
    yield Fakes(load, edges, bindings)
    load.close()
    for edge in edges.values():
        edge.transport.close()
    await asyncio.sleep(0)  # a transport closes its socket in the loop's next round


async def acts(fakes: Fakes, count: int) -> None:
    """Every phone acts that often."""
    for _ in range(count):
        await asyncio.gather(*(fakes.load.act(phone) for phone in fakes.load.phones))


async def test_phones_register_refresh_leave_and_know_their_bindings(fakes: Fakes) -> None:
    await acts(fakes, 12)
    assert not fakes.load.violations
    for phone in fakes.load.phones:
        assert phone.possible == {frozenset(fakes.bindings[phone.aor])}
    assert any(not contacts for contacts in fakes.bindings.values()), "nobody left"


async def test_credentials_are_sent_before_they_are_asked_for_with_a_rising_nc(fakes: Fakes) -> None:
    phone = fakes.load.phones[0]
    for _ in range(3):
        await fakes.load.act(phone)
    assert fakes.edges["edge-1"].uses + fakes.edges["edge-2"].uses
    assert sorted(fakes.edges["edge-1"].uses + fakes.edges["edge-2"].uses) == [("n1", f"{n:08x}") for n in (1, 2, 3)]
    assert [sent.cseq for sent in phone.history] == [2, 3, 4]


@pytest.mark.parametrize("status", [503, None])
async def test_a_request_that_is_not_promised_may_be_done_or_not(fakes: Fakes, status: int | None) -> None:
    phone = fakes.load.phones[0]
    await fakes.load.act(phone)
    for edge in fakes.edges.values():
        edge.answer = lambda _: status
    await fakes.load.register(phone, Intent(phone.contact(), 0))
    assert phone.possible == {frozenset(), frozenset({phone.contact()})}
    assert phone.certain() is None
    for edge in fakes.edges.values():
        edge.answer = lambda _: 200
    await fakes.load.act(phone)
    assert phone.possible == {frozenset(fakes.bindings[phone.aor])}
    fakes.load.judge()
    assert len(fakes.load.violations) == (0 if status else 1), "silence is a violation, 503 is not"


async def test_silence_is_answered_by_retransmission(fakes: Fakes) -> None:
    fakes.load.patience = 2.0
    phone = fakes.load.phones[0]
    await fakes.load.act(phone)
    heard: list[str] = []

    def hears(text: str) -> int | None:
        heard.append(text)
        return 200 if len(heard) > 1 else None

    for edge in fakes.edges.values():
        edge.answer = hears
    sent = await fakes.load.act(phone)
    assert sent is not None
    assert heard[0] == heard[1]
    assert sent.exchange.copies == 1
    assert not fakes.load.violations


async def test_a_200_that_does_not_list_what_was_asked_is_a_violation(fakes: Fakes) -> None:
    phone = fakes.load.phones[0]
    await fakes.load.act(phone)
    fakes.bindings[phone.aor].add("sip:somebody@else")
    await fakes.load.register(phone, Intent(phone.contact(), 300))
    assert "200 lists" in fakes.load.violations[0]


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_an_undocumented_status_is_a_violation(fakes: Fakes, status: int) -> None:
    for edge in fakes.edges.values():
        edge.answer = lambda _: status
    await fakes.load.act(fakes.load.phones[0])
    assert f"undocumented {status}" in fakes.load.violations[0]


async def test_an_edge_answers_only_what_it_received(fakes: Fakes) -> None:
    phone = fakes.load.phones[0]
    await fakes.load.act(phone)
    for edge in fakes.edges.values():
        edge.answer = lambda _: None
    fakes.load.uptime.away("edge-1", time.time())
    for name in fakes.edges:
        await fakes.load.register(phone, Intent(phone.contact(), 300), edge=name)
    fakes.load.judge()
    assert len(fakes.load.violations) == 1
    assert "edge-2" in fakes.load.violations[0]


def test_the_first_copy_that_a_new_edge_can_have_received_counts() -> None:
    uptime = Uptime()
    assert uptime.received("edge-1", [10.0, 10.5], 12.0) == 10.0
    uptime.away("edge-1", 3.0, 4.0)
    uptime.away("edge-1", 13.0)
    assert uptime.received("edge-1", [10.0, 10.5], 12.0) == 10.0
    uptime.away("edge-1", 9.0, 10.2)
    assert uptime.received("edge-1", [10.0, 10.5, 11.5], 12.0) == 10.5
    uptime.away("edge-1", 11.0, 11.1)
    assert uptime.received("edge-1", [10.0, 10.5, 11.5], 12.0) == 11.5
    assert uptime.received("edge-1", [10.0, 10.5], 12.0) is None
    assert uptime.received("edge-1", [10.0, 10.5, 11.5], 14.0) is None, "it is away and will never answer"
    assert uptime.received("edge-2", [10.0, 10.5], 12.0) == 10.0


def test_an_edges_wait_for_a_cpu_is_that_of_the_time_in_question_over_its_lives() -> None:
    uptime = Uptime()
    assert uptime.waited("edge-1", 1.0, 2.0) == 0.0
    for at, waited in ((1.0, 5.0), (2.0, 5.5), (3.0, 6.5), (4.0, 0.2), (5.0, 0.3)):
        uptime.note("edge-1", at, waited)
    assert uptime.waited("edge-1", 1.0, 2.0) == pytest.approx(0.5)
    assert uptime.waited("edge-1", 1.5, 2.5) == pytest.approx(1.5)
    assert uptime.waited("edge-1", 2.5, 3.5) == pytest.approx(1.2)
    assert uptime.waited("edge-1", 0.5, 9.0) == pytest.approx(1.8)
    uptime.note_stalled(1.0, 0.0)
    uptime.note_stalled(5.0, 3.0)
    assert uptime.waited("edge-1", 1.0, 2.0) == pytest.approx(3.5), "the machine stood still at some time in between"
    assert uptime.waited("edge-2", 1.0, 2.0) == pytest.approx(3.0)


async def test_a_changed_mind_is_a_violation(fakes: Fakes) -> None:
    """E02: never a 200 for a request that was answered 503."""
    phone = fakes.load.phones[0]
    await fakes.load.act(phone)
    told = asyncio.Event()
    fakes.load.transactions._changed = lambda exchange, answer: told.set()
    first = fakes.edges["edge-1"]

    def says_both(text: str) -> int:
        first._say(text, 503, ["Retry-After: 1"], fakes.load.transactions.local)
        return 200

    first.answer = says_both
    await fakes.load.register(phone, Intent(phone.contact(), 300), edge="edge-1")
    await asyncio.wait_for(told.wait(), 2)


async def test_the_rate_is_bounded_and_every_phone_has_one_request_at_a_time(fakes: Fakes) -> None:
    for edge in fakes.edges.values():
        edge.answer = lambda _: None
    fakes.load.start(rate=1000)
    await asyncio.sleep(0.2)
    await fakes.load.stop()
    assert all(len(phone.history) <= 2 for phone in fakes.load.phones)
    for edge in fakes.edges.values():
        edge.answer = lambda _: 200
    fakes.load.start(rate=2000, phones=fakes.load.phones[:2])
    await asyncio.sleep(0.1)
    await fakes.load.stop()
    for phone in fakes.load.phones[:2]:
        numbers = [sent.cseq for sent in phone.history]
        assert len(set(numbers)) == len(numbers) > 2


# -- the ledger ------------------------------------------------------------------------------------------

AOR = "u1@x.test"


@dataclass
class Row:
    offset: int
    value: bytes
    headers: list[tuple[str, bytes]]
    partition: int = 0
    key: bytes = AOR.encode()
    timestamp: int = 100_001


def binding(id_: int, contact: str = "sip:a@h", cseq: int = 1, expires: int = 400_000) -> Binding:
    return Binding(id_, contact, "call", cseq, expires, 300, 100_000, 100_000)


def row(offset: int, event: RegistrationEvent, s: int = 0, c: int = 0) -> Row:
    headers = [] if isinstance(event, Claimed) else [("s", b"%d" % s), ("c", b"%d" % c)]
    return Row(offset, encode(event), headers)


def recorded(id_: str, changes: list[tuple[Kind, int]], bindings: list[Binding], cseq: int = 1) -> BindingsRecorded:
    state = AorState(100_000 + cseq, tuple(bindings), (Seen(id_, "call", cseq, "z", 100_000),))
    return BindingsRecorded(id_, AOR, AOR, tuple(Change(k, i, "sip:a@h") for k, i in changes), state)


CLAIM_0 = row(0, Claimed("registrar-1"))
CREATED = row(1, recorded("a", [(Kind.CREATED, 7)], [binding(7)]), s=1)


def taken(*rows: Row) -> Ledger:
    ledger = Ledger()
    ledger.take(rows)
    return ledger


def test_an_orderly_log_has_no_violations() -> None:
    ledger = taken(
        CLAIM_0,
        CREATED,
        row(2, recorded("b", [(Kind.REFRESHED, 7)], [binding(7, cseq=2)], 2), s=2),
        row(3, recorded("c", [], [binding(7, cseq=2)], 2), s=3),
        row(4, recorded("d", [(Kind.UNREGISTERED, 7)], [], 3), s=4),
    )
    assert not ledger.violations
    assert rows_of(ledger.states) == {}


def test_e16_a_record_of_a_lower_claim_is_void() -> None:
    ledger = taken(
        CLAIM_0, CREATED, row(2, Claimed("registrar-2")), row(3, recorded("b", [(Kind.UNREGISTERED, 7)], []), s=2)
    )
    assert not ledger.violations
    assert ledger.void == 1
    assert rows_of(ledger.states) == {AOR: {7: ("sip:a@h", 400_000)}}
    assert "VOID" in ledger.report(AOR)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (row(2, recorded("b", [(Kind.REFRESHED, 7)], [binding(7, cseq=2)], 2), s=1), "answers command 1 after 1"),
        (row(2, recorded("a", [(Kind.REFRESHED, 7)], [binding(7, cseq=2)], 2), s=2), "changed something twice"),
        (row(2, recorded("b", [(Kind.REFRESHED, 7)], [binding(7)], 1), s=2), "changed something before"),
        (row(2, recorded("b", [(Kind.CREATED, 8)], [binding(8)], 2), s=2), "another state"),
        (row(2, recorded("b", [(Kind.REFRESHED, 9)], [binding(7)], 2), s=2), "was not there"),
        (row(2, recorded("b", [], [], 2), s=2), "another state"),
        (row(2, recorded("b", [(Kind.UNREGISTERED, 7)], [binding(7)], 2), s=2), "another state"),
    ],
)
def test_what_breaks_the_log_is_seen(bad: Row, what: str) -> None:
    assert any(what in violation for violation in taken(CLAIM_0, CREATED, bad).violations)


def command(offset: int, id_: str, cseq: int, expires: int = 300, deadline: int = 200_000) -> Row:
    """A command as authsvc writes it."""
    register = Registration("call", cseq, f"z{cseq}", (Contact("sip:a@h"),), expires=expires)
    value = RegisterContacts(id_, ReplyTo("edge-1", "b", deadline), AOR, AOR, register)
    return Row(offset, encode(value), [], timestamp=100_000 + 1000 * cseq)


def decided(rows: list[Row], skipping: frozenset[int] = frozenset()) -> Ledger:
    """The log that a registrar makes of these commands, judged with its decisions made again."""
    ledger, state, truths = Ledger(Policy()), AorState(), [row(0, Claimed("registrar-1:b"))]
    for asked in rows:
        ledger.commands[0, asked.offset] = asked
        event = decide(state, decode_command(asked.value), asked.timestamp, 0, asked.offset, Policy())
        if isinstance(event, BindingsRecorded) and asked.offset not in skipping:
            state = event.state
            truths.append(row(len(truths), event, s=asked.offset))
    ledger.take(truths)
    return ledger


def test_decisions_that_follow_from_their_commands_are_in_order() -> None:
    ledger = decided([command(0, "a", 1), command(1, "b", 2), command(2, "c", 2), command(3, "d", 3, expires=0)])
    assert not ledger.violations
    assert ledger.valid == 4, "a copy is answered, too"


def test_a_command_that_was_passed_over_is_seen() -> None:
    ledger = decided([command(0, "a", 1), command(1, "b", 2), command(2, "c", 3)], skipping=frozenset({1}))
    assert any("command 1" in violation for violation in ledger.violations)


def test_e22_a_command_done_after_its_deadline_is_seen() -> None:
    ledger = decided([command(0, "a", 1), command(1, "b", 2, deadline=101_000)])
    assert any("that is late" in violation for violation in ledger.violations)


# -- the other checks ------------------------------------------------------------------------------------


async def acknowledged(fakes: Fakes) -> tuple[Phone, Sent]:
    phone = fakes.load.phones[0]
    sent = await fakes.load.act(phone)
    assert sent is not None
    return phone, sent


async def test_a_lost_registration_is_seen(fakes: Fakes) -> None:
    """E08."""
    phone, _ = await acknowledged(fakes)
    assert "has []" in broken_promises([phone], {})[phone.aor]


async def test_a_kept_registration_is_in_order_and_a_shorter_one_is_seen(fakes: Fakes) -> None:
    phone, sent = await acknowledged(fakes)
    until = int((sent.exchange.sent + 300) * 1000)

    def state(expires: int, cseq: int) -> dict[str, AorState]:
        return {phone.aor: AorState(1, (Binding(1, phone.contact(), sent.call_id, cseq, expires, 300, 1, 1),))}

    assert not broken_promises([phone], state(until + 5, sent.cseq))
    assert "promised until" in broken_promises([phone], state(until - 5000, sent.cseq))[phone.aor]
    assert "acknowledged was" in broken_promises([phone], state(until + 5, sent.cseq - 1))[phone.aor]


async def test_a_registration_may_end_when_its_time_is_over_and_not_before(fakes: Fakes) -> None:
    phone, sent = await acknowledged(fakes)
    end = sent.exchange.sent + 300
    assert not phone.may_have(frozenset(), end - 1)
    assert phone.may_have(frozenset(), end)
    assert phone.may_have(frozenset({phone.contact()}), end)
    assert not phone.may_have(frozenset({"sip:somebody@else"}), end)


def test_e23_a_binding_that_lives_on_is_seen() -> None:
    states = {AOR: AorState(1, (binding(7, expires=400_000),))}
    assert not lingering(states, 414.0)
    assert AOR in lingering(states, 416.0)


def test_rows_that_differ_from_the_log_are_seen() -> None:
    expected = {"a": {1: ("sip:x", 5)}, "b": {2: ("sip:y", 6)}}
    assert differing(expected, expected) == []
    assert differing(expected, {"a": {1: ("sip:x", 4)}, "c": {3: ("sip:z", 1)}}) == ["a", "b", "c"]


def test_history_is_one_open_interval_for_each_live_binding() -> None:
    rows = {"a": {1: ("sip:x", 5)}}
    good = [(1, 1, 4, "refreshed"), (1, 4, None, None), (2, 2, 3, "unregistered")]
    assert not broken_history(good, rows)
    assert broken_history([*good, (3, 9, None, None)], rows)
    assert broken_history([(2, 2, 3, "unregistered")], rows)
    assert broken_history([*good, (2, 3, 4, "expired")], rows)


def test_contacts_are_found_wherever_they_stand() -> None:
    assert contacts_in({"aor": "x", "bindings": [{"contact": "sip:a", "path": []}, {"contact": "sip:b"}]}) == {
        "sip:a",
        "sip:b",
    }
    assert contacts_in([]) == frozenset()
