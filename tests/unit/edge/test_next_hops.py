"""RFC 3263 without DNS: what a URI asks for, and the orders of NAPTR and SRV (T16)."""

from collections import Counter
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.actions import NextHop
from edge.core.next_hops import Naptr, NextHopQuery, Service, by_naptr, in_order, numeric, query_of, services


@pytest.mark.parametrize(
    ("uri", "hop"),
    [
        ("sip:a@192.0.2.1", NextHop("udp", "192.0.2.1", 5060, "192.0.2.1")),
        ("sip:192.0.2.1:5070;transport=TCP", NextHop("tcp", "192.0.2.1", 5070, "192.0.2.1")),
        ("sip:[2001:DB8::0:1];transport=tls", NextHop("tls", "2001:db8::1", 5061, "2001:db8::1")),
        ("sips:a@192.0.2.1", NextHop("tls", "192.0.2.1", 5061, "192.0.2.1")),
        ("sips:a@192.0.2.1:5071;transport=tcp", NextHop("tls", "192.0.2.1", 5071, "192.0.2.1")),
        ("sip:a@example.test;maddr=192.0.2.9", NextHop("udp", "192.0.2.9", 5060, "192.0.2.9")),
    ],
)
def test_t16_a_numeric_host_takes_no_dns(uri: str, hop: NextHop) -> None:
    assert numeric(uri) == [hop]


@pytest.mark.parametrize(
    "uri",
    [
        "tel:+1",
        "nonsense",
        "sip:a@localhost",
        "sip:a@gateway",
        "sip:a@df7jal23ls0d.invalid;transport=ws",
        "sip:a@df7jal23ls0d.invalid",
        "sip:a@x.localhost.",
        "sip:a@127.1",
        "sip:a@2130706433",
        "sip:a@0x7f.1",
        "sip:a@a..test",
        "sip:a@.test",
        "sip:a@example.test:0",
        "sip:a@192.0.2.1;transport=ws",
        "sip:a@192.0.2.1;transport=sctp",
        "sips:a@192.0.2.1;transport=udp",
    ],
)
def test_t16_what_leads_nowhere_takes_no_dns(uri: str) -> None:
    assert numeric(uri) == []


def test_t16_names_are_for_dns() -> None:
    assert numeric("sip:a@Example.Test.") is None
    assert query_of("sip:a@Example.Test.") == NextHopQuery("example.test", "", 0, secure=False)
    assert query_of("sips:a@example.test:5065") == NextHopQuery("example.test", "", 5065, secure=True)


def test_t16_without_naptr_the_transports_services_are_asked_for() -> None:
    assert services(NextHopQuery("a.test", "", 0, secure=False)) == [
        ("udp", "_sip._udp.a.test"),
        ("tcp", "_sip._tcp.a.test"),
    ]
    assert services(NextHopQuery("a.test", "tcp", 0, secure=False)) == [("tcp", "_sip._tcp.a.test")]
    assert services(NextHopQuery("a.test", "tls", 0, secure=False)) == [("tls", "_sips._tcp.a.test")]
    assert services(NextHopQuery("a.test", "", 0, secure=True)) == [("tls", "_sips._tcp.a.test")]


def test_t16_naptr_goes_by_order_and_preference_and_sips_takes_tls_alone() -> None:
    # The example of RFC 3263 section 4.1, shuffled, with records that are none of SIP's.
    records = [
        Naptr(100, 50, "s", "SIP+D2U", "", "_sip._udp.example.com"),
        Naptr(50, 50, "s", "SIPS+D2T", "", "_sips._tcp.example.com"),
        Naptr(90, 60, "S", "sip+d2t", "", "_sip._tcp.b.example.com"),
        Naptr(90, 50, "s", "SIP+D2T", "", "_sip._tcp.example.com"),
        Naptr(1, 1, "s", "SIP+D2S", "", "_sip._sctp.example.com"),
        Naptr(2, 1, "u", "SIP+D2U", "!^.*$!sip:x@y!", ""),
        Naptr(3, 1, "s", "SIP+D2U", "", ""),
    ]
    tls = ("tls", "_sips._tcp.example.com")
    assert by_naptr(records, secure=True) == [tls]
    assert by_naptr(records, secure=False) == [
        tls,
        ("tcp", "_sip._tcp.example.com"),
        ("tcp", "_sip._tcp.b.example.com"),
        ("udp", "_sip._udp.example.com"),
    ]


def test_t16_srv_goes_by_priority_and_within_one_by_weight() -> None:
    first, heavy, light, none = (
        Service(0, 0, 5060, "first"),
        Service(1, 90, 5060, "heavy"),
        Service(1, 10, 5060, "light"),
        Service(1, 0, 5060, "none"),
    )
    records = [heavy, none, first, light]
    assert in_order(records, cycle([0.0]).__next__) == [first, none, light, heavy]
    assert in_order(records, cycle([0.999]).__next__) == [first, heavy, light, none]
    chosen = Counter(in_order(records, iter([0.5, i / 1000, 0.5, 0.5]).__next__)[1].target for i in range(1000))
    assert chosen["heavy"] > 8 * chosen["light"] > 0
    assert 0 < chosen["none"] < 20


_services = st.lists(st.builds(Service, st.integers(0, 3), st.integers(0, 65535), st.just(5060), st.text(max_size=2)))


@given(_services, st.lists(st.floats(0, 1, exclude_max=True), min_size=1))
def test_t16_no_srv_record_is_lost_and_priorities_rise(records: list[Service], draws: list[float]) -> None:
    ordered = in_order(records, cycle(draws).__next__)
    assert sorted(ordered) == sorted(records)
    assert [record.priority for record in ordered] == sorted(record.priority for record in records)


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    numeric(text)
    numeric("sip:" + text)
