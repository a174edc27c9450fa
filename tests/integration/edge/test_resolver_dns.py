"""The resolver against a name server of our own, over real UDP (T16, S10)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from edge.core.actions import NextHop, Resolve
from edge.core.deny import Denied
from edge.outside import resolver as resolver_module
from edge.outside.resolver import Resolver
from runtime.errors import ConfigError
from runtime.metrics import drops

DEADLINE = 10.0
ZONE = {
    ("a.test", "A"): ["198.51.100.1", "198.51.100.2"],
    ("a.test", "AAAA"): ["2001:db8::1"],
    ("b.test", "NAPTR"): [
        '20 0 "s" "SIP+D2U" "" _sip._udp.b.test.',
        '10 0 "s" "SIPS+D2T" "" _sips._tcp.none.test.',
        '15 0 "s" "SIP+D2T" "" _sip._tcp.elsewhere.test.',
    ],
    ("_sip._tcp.elsewhere.test", "SRV"): ["10 0 5080 s2.b.test.", "0 0 5070 s1.b.test."],
    ("_sip._udp.b.test", "SRV"): ["0 0 5060 s1.b.test."],
    ("_sips._tcp.b.test", "SRV"): ["0 0 5091 s1.b.test."],
    ("s1.b.test", "A"): ["198.51.100.11"],
    ("s2.b.test", "A"): ["198.51.100.12"],
    ("b.test", "A"): ["198.51.100.99"],
    ("c.test", "A"): ["198.51.100.3"],
    ("_sip._tcp.c.test", "SRV"): ["0 0 5062 a.test."],
    ("_sip._udp.off.test", "SRV"): ["0 0 0 ."],
    ("off.test", "A"): ["198.51.100.4"],
    ("evil.test", "A"): ["127.0.0.1", "169.254.169.254", "10.0.0.1"],
    ("many.test", "A"): [f"198.51.100.{i}" for i in range(100)],
}
SILENT = ("silent.test", "half.test")


class NameServer(asyncio.DatagramProtocol):
    """Answers for `.test`; for names of SILENT nothing."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.zone = dict(ZONE)
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio's own is no subclass of it

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        if name == "silent.test" or (name == "half.test" and kind == "NAPTR"):
            return
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if records := self.zone.get((name, kind)):
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *records))
        else:
            if not any(name == known for known, _ in self.zone):
                answer.set_rcode(dns.rcode.NXDOMAIN)
            answer.authority.append(dns.rrset.from_text("test.", 60, "IN", "SOA", ". . 1 60 60 60 60"))
        assert self._transport is not None
        self._transport.sendto(answer.to_wire(max_size=65535), addr)


class Asking:
    """A resolver, and who waits for what it finds."""

    def __init__(self, nameserver: str, denied: Denied, **more: object) -> None:
        self.answers: dict[int, asyncio.Future[list[NextHop]]] = {}
        self.resolver = Resolver(
            lambda id_, hops: self.answers[id_].set_result(hops),
            denied,
            (nameserver,),
            draw=lambda: 0.0,
            **more,  # type: ignore[arg-type]
        )

    async def __call__(self, *uris: str) -> list[list[NextHop]]:
        """Where these URIs, asked for in one call, lead."""
        loop = asyncio.get_running_loop()
        ids = range(len(self.answers), len(self.answers) + len(uris))
        self.answers.update({id_: loop.create_future() for id_ in ids})
        self.resolver.resolve([Resolve(id_, uri) for id_, uri in zip(ids, uris, strict=True)])
        async with asyncio.timeout(DEADLINE):
            return [await self.answers[id_] for id_ in ids]


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    protocol = NameServer()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: protocol, ("127.0.0.1", 0))
    yield protocol
    transport.close()


@pytest.fixture
async def make(server: NameServer) -> AsyncIterator[Callable[..., Asking]]:
    made: list[Asking] = []

    def asking(denied: Denied | None = None, **more: object) -> Asking:
        assert server._transport is not None
        host, port = server._transport.get_extra_info("sockname")
        made.append(Asking(f"{host}:{port}", denied or Denied(), **more))
        return made[-1]

    yield asking
    for each in made:
        await each.resolver.stop()


@pytest.fixture
def ask(make: Callable[..., Asking]) -> Asking:
    return make()


async def test_t16_numeric_hosts_and_dead_ends_ask_nobody(ask: Asking, server: NameServer) -> None:
    assert await ask("sip:192.0.2.1", "sip:x.invalid", "sip:gateway", "tel:+1") == [
        [NextHop("udp", "192.0.2.1", 5060, "192.0.2.1")],
        [],
        [],
        [],
    ]
    assert not server.asked


async def test_t16_a_port_means_addresses_alone(ask: Asking, server: NameServer) -> None:
    (hops,) = await ask("sip:a.test:5099;transport=tcp")
    # The name server shuffles addresses; those of the preferred family come first.
    assert sorted(hop.host for hop in hops[:2]) == ["198.51.100.1", "198.51.100.2"]
    assert hops[2] == NextHop("tcp", "2001:db8::1", 5099, "a.test")
    assert set(server.asked) == {("a.test", "A"), ("a.test", "AAAA")}


async def test_t16_naptr_leads_to_srv_and_on_to_addresses(ask: Asking) -> None:
    (hops,) = await ask("sip:u@b.test")
    # TLS is preferred, but has no SRV record; then TCP, its records by priority; UDP is not preferred.
    assert hops == [
        NextHop("tcp", "198.51.100.11", 5070, "b.test"),
        NextHop("tcp", "198.51.100.12", 5080, "b.test"),
    ]


async def test_t16_a_transport_asks_for_its_service_and_sips_for_tls(ask: Asking, server: NameServer) -> None:
    tls = [NextHop("tls", "198.51.100.11", 5091, "b.test")]
    udp = [NextHop("udp", "198.51.100.11", 5060, "b.test")]
    assert await ask("sips:b.test", "sip:b.test;transport=tls", "sip:b.test;transport=udp") == [tls, tls, udp]
    assert server.asked["b.test", "NAPTR"] == 1


async def test_t16_without_naptr_srv_is_asked_for_and_without_srv_addresses(ask: Asking) -> None:
    tcp, plain, secure = await ask("sip:c.test", "sip:a.test", "sips:c.test")
    assert NextHop("tcp", "198.51.100.1", 5062, "c.test") in tcp
    assert NextHop("udp", "198.51.100.1", 5060, "a.test") in plain
    assert (len(tcp), len(plain)) == (3, 3)
    assert secure == [NextHop("tls", "198.51.100.3", 5061, "c.test")]


async def test_t16_a_service_that_is_said_not_to_be_there_is_not_tried(ask: Asking) -> None:
    assert await ask("sip:off.test", "sip:off.test;transport=udp", "sip:off.test;transport=tcp") == [
        [],
        [],
        [NextHop("tcp", "198.51.100.4", 5060, "off.test")],
    ]


async def test_uris_that_ask_for_the_same_are_one_look_up_and_answers_are_kept(ask: Asking, server: NameServer) -> None:
    first, second = await ask("sip:a@a.test:5060", "sip:b@A.TEST:5060")
    assert first == second != []
    assert await ask("sip:a@a.test:5061;transport=tcp", "sip:nobody.test", "sip:nobody.test:5060")
    assert await ask("sip:nobody.test") == [[]]
    assert set(server.asked.values()) == {1}, "also what is not there is asked for once"


async def test_s10_addresses_that_must_not_be_sent_to_are_left_out(make: Callable[..., Asking]) -> None:
    before = drops("address-denied")
    ask = make(Denied(["10.0.0.0/8"]))
    assert await ask("sip:evil.test", "sip:evil.test:9092;transport=tcp", "sip:127.0.0.1:22", "sip:[::1]") == [[]] * 4
    assert drops("address-denied") == before + 8


async def test_an_address_family_that_is_not_ours_is_left_out(make: Callable[..., Asking], server: NameServer) -> None:
    six = NextHop("udp", "2001:db8::1", 5060, "a.test")
    assert await make(families=(6,))("sip:a.test:5060", "sip:192.0.2.1") == [[six], []]
    assert (await make(families=(6, 4))("sip:a.test:5060"))[0][0] == six


async def test_a_name_of_very_many_addresses_is_cut(ask: Asking) -> None:
    (hops,) = await ask("sip:many.test:5060")
    assert len(hops) == resolver_module.MOST_HOPS


async def test_a_silent_name_server_costs_the_deadline_and_a_silent_naptr_does_not(
    ask: Asking, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drops("resolve-timeout")
    server.zone["half.test", "A"] = ["198.51.100.5"]
    monkeypatch.setattr(resolver_module, "SECONDS", 1.5)
    silent, half, other = await ask("sip:silent.test", "sip:half.test", "sip:c.test:5060")
    assert silent == []
    assert half == [NextHop("udp", "198.51.100.5", 5060, "half.test")]
    assert other == [NextHop("udp", "198.51.100.3", 5060, "c.test")]
    assert drops("resolve-timeout") == before + 1


async def test_more_look_ups_than_are_bounded_lead_nowhere_at_once(
    ask: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drops("resolve-overload")
    monkeypatch.setattr(resolver_module, "WAITING", 1)
    first, second = await ask("sip:a.test:5060", "sip:c.test:5060")
    assert first
    assert second == []
    assert drops("resolve-overload") == before + 1


async def test_stopping_ends_what_is_under_way(make: Callable[..., Asking]) -> None:
    ask = make()
    ask.answers[0] = asyncio.get_running_loop().create_future()
    ask.resolver.resolve([Resolve(0, "sip:silent.test")])
    async with asyncio.timeout(DEADLINE):
        await ask.resolver.stop()
    assert not ask.answers[0].done()


@pytest.mark.parametrize("text", ["dns.example.test", "192.0.2.1:x", "dns.example.test:53"])
def test_a_wrong_name_server_is_refused_by_its_key(text: str) -> None:
    with pytest.raises(ConfigError, match="RAMAL_EDGE_NAMESERVERS"):
        Resolver(lambda id_, hops: None, Denied(), (text,))


@pytest.mark.parametrize(
    ("name", "leads"),
    [("a.test", True), ("b.test", True), ("off.test", False), ("nobody.test", False), ("silent.test", False)],
)
async def test_whether_a_name_leads_anywhere_is_known_in_time(ask: Asking, name: str, *, leads: bool) -> None:
    async with asyncio.timeout(DEADLINE):
        assert await ask.resolver.knows(name) is leads


async def test_an_address_and_a_name_of_the_hosts_file_lead_there(
    ask: Asking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# nobody.test\n192.0.2.1 edge  SIP.nobody.test # x\n")
    monkeypatch.setattr(resolver_module, "HOSTS_FILE", hosts)
    assert await ask.resolver.knows("192.0.2.1")
    assert await ask.resolver.knows("sip.nobody.test")
    assert not await ask.resolver.knows("nobody.test")
