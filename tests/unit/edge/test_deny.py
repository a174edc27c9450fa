"""What nothing is sent to (S10), and who is a peer (A28)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.deny import Denied, SipPeers
from runtime.errors import ConfigError

HERE = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "169.254.169.254",
    "169.254.3.4",
    "224.0.1.75",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "::1",
    "[::1]",
    "::127.0.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "fd00:ec2::254",
    "100.100.100.200",
]
PUBLIC = ["198.51.100.7", "10.0.0.9", "192.168.1.2", "2001:db8::1", "[2001:db8::1]", "fd12::1", "::ffff:198.51.100.7"]


@pytest.mark.parametrize("host", HERE)
def test_s10_addresses_of_this_host_and_its_link_are_refused(host: str) -> None:
    assert Denied(bound=["0.0.0.0", "::", "198.51.100.1"]).refuses(host)


@pytest.mark.parametrize("host", PUBLIC)
def test_s10_phones_addresses_are_not_refused(host: str) -> None:
    assert not Denied().refuses(host)


@pytest.mark.parametrize("host", ["example.test", "", "127.1", "0x7f000001", "2130706433", "localhost", "1.2.3.4.5"])
def test_s10_what_is_no_address_is_refused(host: str) -> None:
    assert Denied().refuses(host)


def test_s10_an_edge_on_loopback_may_send_to_loopback_and_nowhere_else_here() -> None:
    denied = Denied(bound=["127.0.0.1"])
    assert not denied.refuses("127.0.0.7")
    assert not denied.refuses("::ffff:127.0.0.1")
    assert denied.refuses("::1")
    assert denied.refuses("169.254.169.254")


def test_s10_the_clusters_networks_are_refused_but_for_what_is_bound_or_listed() -> None:
    denied = Denied(["10.0.0.0/8", "fd00::/8"], bound=["10.1.1.1"], allowed=["10.2.0.0/24"])
    assert denied.refuses("10.3.0.1")
    assert denied.refuses("fd12::1")
    assert not denied.refuses("10.1.1.1")
    assert not denied.refuses("10.2.0.9")
    assert not denied.refuses("192.168.1.2")


@given(st.text())
def test_no_text_breaks_the_list(text: str) -> None:
    assert Denied().refuses(text) in (True, False)
    assert not SipPeers(["192.0.2.0/24"]).is_peer("not" + text)


def test_a28_peers_are_addresses_and_networks() -> None:
    peers = SipPeers(
        ["192.0.2.9", "198.51.100.0/24", "[2001:db8::1]"], own=["203.0.113.1", "0.0.0.0", "edge.example.test"]
    )
    assert peers.is_peer("192.0.2.9")
    assert peers.is_peer("::ffff:192.0.2.9")
    assert peers.is_peer("198.51.100.77")
    assert peers.is_peer("2001:db8::1")
    assert not peers.is_peer("192.0.2.10")
    assert not peers.is_peer("")


@pytest.mark.parametrize(
    ("peers", "own", "cluster", "wrong"),
    [
        (["10.0.0.0/8"], ["10.1.1.1"], [], "10.1.1.1"),
        (["0.0.0.0/0"], ["203.0.113.1"], [], "203.0.113.1"),
        (["127.0.0.1"], ["::ffff:127.0.0.1"], [], "127.0.0.1"),
        (["10.0.0.0/8"], [], ["10.244.0.0/16"], "10.244.0.0/16"),
        (["10.244.1.2"], [], ["10.244.0.0/16"], "10.244.0.0/16"),
        (["2001:db8::/32"], [], ["2001:db8:1::/48"], "2001:db8:1::/48"),
        (["gw.example.test"], [], [], "gw.example.test"),
    ],
)
def test_a28_a_peer_list_with_an_address_of_ours_is_refused(
    peers: list[str], own: list[str], cluster: list[str], wrong: str
) -> None:
    with pytest.raises(ConfigError, match=f"RAMAL_EDGE_PEERS.*{wrong}"):
        SipPeers(peers, own, cluster)


def test_a_wrong_network_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match="RAMAL_EDGE_DENY"):
        Denied(["10.0.0.0/99"])
