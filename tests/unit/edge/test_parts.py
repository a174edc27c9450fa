"""Flow tokens, the log's clock, the rate per source, the settings, what is for this boot."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config import EdgeConfig, core_settings, endpoint
from edge.core.clock import LogClock
from edge.core.flow import Flow
from edge.core.rate import SourceRate
from edge.core.tokens.path import FLOWS, FlowTokens
from edge.service import build
from edge.topics.replies import Replies
from edge.transport.connections import StreamLimits
from edge.transport.layer import StreamSettings, Transports
from edge.transport.tls import Certificates
from events.replies import Refused, Registered, Reply
from events.wire import encode
from runtime.config import Common, Sources
from runtime.errors import ConfigError
from runtime.metrics import drops
from tests.kit.edge import KEYS, TCP, UDP, core

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


def test_e17_the_clock_follows_the_log_whatever_the_wall_says() -> None:
    clock = LogClock(10.0, 5_000.0)
    assert clock.at(11.0) == 5_001_000
    clock.learn(12.0, 12.1, 9_000_050)
    assert clock.at(12.05) in (9_000_050, 9_000_051)
    clock.learn(20.0, 25.0, 9_012_000)  # a long wait teaches nothing new
    assert clock.at(12.05) in (9_000_050, 9_000_051)
    clock.learn(30.0, 30.01, 9_118_000)  # the log's clock was stepped: followed at once
    assert abs(clock.at(30.0) - 9_118_000) <= 11


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)), min_size=1, max_size=20))
def test_e17_the_estimate_is_never_further_off_than_a_round_trip(trips: list[tuple[float, float]]) -> None:
    clock = LogClock(0.0, 0.0)
    now = 0.0
    for out, back in trips:
        sent = now
        stamped = sent + out
        now = stamped + back
        clock.learn(sent, now, int(stamped * 1000) + 7_000_000)
        assert abs(clock.at(now) - (now * 1000 + 7_000_000)) <= (out + back) * 1000 + 2


def test_s01_the_table_of_sources_is_bounded() -> None:
    rate = SourceRate(1.0, sources=10)
    for number in range(100):
        assert rate.passes(str(number), 0.0)
    assert not rate.passes("99", 0.0)
    assert rate.passes("0", 0.0)  # forgotten
    assert rate.passes("99", 1.0)


@pytest.mark.parametrize(("text", "pair"), [("0.0.0.0:5060", ("0.0.0.0", 5060)), ("[::]:0", ("::", 0))])
def test_endpoints(text: str, pair: tuple[str, int]) -> None:
    assert endpoint(text, "K") == pair


@pytest.mark.parametrize("text", ["5060", "host", "host:", ":1", "host:70000", "host:x"])
def test_bad_endpoints_name_the_key(text: str) -> None:
    with pytest.raises(ConfigError, match="RAMAL_EDGE_UDP"):
        endpoint(text, "RAMAL_EDGE_UDP")


def test_bad_settings_name_the_key() -> None:
    with pytest.raises(ConfigError, match="RETRY_AFTER"):
        core_settings(EdgeConfig(retry_after=(9, 1)), Common(), frozenset())
    with pytest.raises(ConfigError, match="REPLY_SECONDS"):
        core_settings(EdgeConfig(reply_seconds=0), Common(), frozenset())
    with pytest.raises(ConfigError, match="RAMAL_KEYS"):
        build(Sources({}, {}), cast(Any, None), cast(Any, None))
    with pytest.raises(ConfigError, match="ADVERTISED"):
        build(
            Sources({"RAMAL_KEYS": "k:" + "00" * 32, "RAMAL_EDGE_ADVERTISED": '{"sctp":"x"}'}, {}),
            cast(Any, None),
            cast(Any, None),
        )


def test_a_bug_with_a_batch_of_replies_does_not_end_the_reading_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    edge = core()
    transports = Transports(edge, list.clear, StreamSettings(StreamLimits(1, 1, 1.0, 1.0), Certificates("", "")))
    monkeypatch.setattr(edge, "replied", broken)
    before = drops("bug")
    transports.replied([Registered("1", "edge-1", "b00t", 0, ())])
    assert drops("bug") == before + 1


def test_replies_for_another_edge_or_boot_and_poisoned_ones_are_dropped() -> None:
    taken: list[Reply] = []
    replies = Replies(cast(Any, None), "edge-1", "b00t", taken.extend)

    def record(key: bytes, value: bytes | None) -> Any:
        return SimpleNamespace(key=key, value=value)

    mine = encode(Refused("1", "edge-1", "b00t", 403, "No"))
    older = encode(Refused("2", "edge-1", "other", 403, "No"))
    records = [
        record(b"edge-1", mine),
        record(b"edge-2", mine),
        record(b"edge-1", older),
        record(b"edge-1", b"{"),
        record(b"edge-1", None),
    ]
    assert [reply.id for reply in replies.decode(records)] == ["1"]
