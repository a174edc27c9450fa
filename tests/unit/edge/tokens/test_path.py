"""Flow tokens: each names its flow, and nobody else can make one."""

from hypothesis import given
from hypothesis import strategies as st

from edge.core.flow import Flow
from edge.core.tokens.path import FLOWS, FlowTokens
from events.owners import owner_of
from tests.kit.edge import KEYS, TCP, UDP

TOKENS = FlowTokens(KEYS, "edge-1", "b00t", "sip.example.test")
ports = st.integers(1, 65535)
ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.ip_addresses(v=6).map(str)


@given(
    st.sampled_from(["udp", "tcp", "tls", "ws", "wss"]),
    st.one_of(st.tuples(ipv4, ipv4), st.tuples(ipv6, ipv6)),
    ports,
    ports,
)
def test_n04_a_token_names_its_flow(transport: str, hosts: tuple[str, str], local: int, remote: int) -> None:
    flow = Flow(transport, hosts[0], local, hosts[1], remote, 0 if transport == "udp" else 77)
    token = TOKENS.make(flow)
    assert token == token.lower()
    named = TOKENS.verify(token.upper())
    assert named is not None
    assert (named.edge, named.flow) == ("edge-1", flow)
    assert named.boot == ("" if transport == "udp" else "b00t")


@given(st.sampled_from([UDP, TCP]), st.text(max_size=30))
def test_who_has_no_key_reads_whose_a_flow_is_and_of_any_other_text_nothing(flow: Flow, text: str) -> None:
    assert owner_of(TOKENS.names(flow).path) == ("edge-1", "b00t" if flow.connection else "")
    for other in (text, f"<sip:{text}", f"<sip:{TOKENS.make(flow)[:20]}@sip.example.test;lr>"):
        assert owner_of(other) is None


@given(st.data())
def test_n05_a_changed_token_names_nothing(data: st.DataObject) -> None:
    token = TOKENS.make(TCP)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
    changed = token[:at] + other + token[at + 1 :]
    assert changed == token or TOKENS.verify(changed) is None


@given(st.text(max_size=80))
def test_n05_any_text_names_nothing(text: str) -> None:
    assert TOKENS.verify(text) is None


def test_n05_a_token_of_a_foreign_key_names_nothing_and_one_of_an_old_key_still_does() -> None:
    foreign = FlowTokens({"k1": b"x" * 32}, "edge-1", "b00t", "x")
    assert TOKENS.verify(foreign.make(UDP)) is None
    rotated = FlowTokens({"k2": b"y" * 32, **KEYS}, "edge-1", "b00t", "x")
    assert rotated.verify(TOKENS.make(UDP)) is not None
    assert TOKENS.verify(rotated.make(UDP)) is None


def test_e11_a_udp_token_outlives_the_boot_and_that_of_a_connection_tells_it() -> None:
    later = FlowTokens(KEYS, "edge-1", "next", "x")
    assert later.make(UDP) == TOKENS.make(UDP)
    assert later.make(TCP) != TOKENS.make(TCP)


def test_names_of_flows_are_kept_within_a_bound() -> None:
    tokens = FlowTokens(KEYS, "edge-1", "b00t", "x")
    assert tokens.names(UDP) is tokens.names(UDP)
    assert tokens.names.cache_info().maxsize == FLOWS
    six = Flow("tcp", "2001:db8::1", 5060, "2001:db8::7", 4000, 1)
    assert tokens.names(six).received == "sip:[2001:db8::7]:4000;transport=tcp"
    assert tokens.names(six).socket == "tcp:[2001:db8::1]:5060"
