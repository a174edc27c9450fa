"""When rtpengine is asked, and for what (CHECKLIST N17)."""

import itertools

import pytest

from edge.core.media.commands import Kind, answer, delete, kinds, leg_kind, legs, needs_relay, offer, rewritten

PAIRS = list(itertools.product(Kind, Kind))
SDP = b"v=0\r\nnot \xff checked here\r\n"


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
def test_n17_media_is_direct_by_default_whatever_the_legs(caller: Kind, callee: Kind) -> None:
    assert not needs_relay("direct", caller, callee)


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
def test_n17_a_bridge_stands_only_between_webrtc_and_others(caller: Kind, callee: Kind) -> None:
    assert needs_relay("bridge", caller, callee) == (Kind.WEBRTC in (caller, callee) and caller != callee)


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
def test_n17_a_relay_stands_between_all(caller: Kind, callee: Kind) -> None:
    assert needs_relay("relay", caller, callee)


def test_websockets_are_webrtc_and_others_rtp_unless_set() -> None:
    assert [leg_kind(transport) for transport in ("ws", "wss", "udp", "tcp", "tls")] == [
        Kind.WEBRTC,
        Kind.WEBRTC,
        Kind.RTP,
        Kind.RTP,
        Kind.RTP,
    ]
    assert leg_kind("tls", ("tls",)) is Kind.SAVP
    assert leg_kind("tcp", ("tls",)) is Kind.RTP
    assert leg_kind("wss", ("wss",)) is Kind.WEBRTC


def test_both_kinds_go_into_one_octet_that_is_never_zero() -> None:
    octets = [legs(*pair) for pair in PAIRS]
    assert 0 not in octets
    assert len(set(octets)) == len(PAIRS)
    assert [kinds(octet) for octet in octets] == PAIRS


@pytest.mark.parametrize("octet", [0, 10, 255, -1])
def test_an_octet_that_is_not_ours_means_direct_media(octet: int) -> None:
    assert kinds(octet) is None


def test_an_initial_offer_names_its_branch_and_no_to_tag() -> None:
    command = offer("call", "from", "z9hG4bK1", SDP, Kind.WEBRTC, Kind.RTP)
    assert command["via-branch"] == "z9hG4bK1"
    assert "to-tag" not in command
    assert command["sdp"] == SDP


def test_an_offer_within_a_dialog_names_both_tags_and_no_branch() -> None:
    command = offer("call", "from", "", SDP, Kind.RTP, Kind.WEBRTC, "to")
    assert (command["from-tag"], command["to-tag"]) == ("from", "to")
    assert "via-branch" not in command


@pytest.mark.parametrize(("offerer", "answerer"), PAIRS)
def test_an_offer_speaks_the_answerers_protocol(offerer: Kind, answerer: Kind) -> None:
    command = offer("call", "from", "b", SDP, offerer, answerer)
    protocols = {Kind.RTP: "RTP/AVP", Kind.SAVP: "RTP/SAVP", Kind.WEBRTC: "UDP/TLS/RTP/SAVPF"}
    assert command["transport-protocol"] == protocols[answerer]
    assert command["ICE"] == ("force" if answerer is Kind.WEBRTC else "remove")


@pytest.mark.parametrize(("offerer", "answerer"), PAIRS)
def test_an_answer_keeps_the_protocol_that_was_offered(offerer: Kind, answerer: Kind) -> None:
    command = answer("call", "from", "b", "to", SDP, offerer, answerer)
    assert "transport-protocol" not in command
    assert command["ICE"] == ("force" if offerer is Kind.WEBRTC else "remove")


def test_rtcp_has_no_port_of_its_own_towards_a_browser_and_one_behind_it() -> None:
    def mux(offerer: Kind, answerer: Kind) -> object:
        return offer("call", "from", "b", SDP, offerer, answerer)["rtcp-mux"]

    assert mux(Kind.RTP, Kind.WEBRTC) == mux(Kind.WEBRTC, Kind.WEBRTC) == ["require"]
    assert mux(Kind.WEBRTC, Kind.SAVP) == ["demux"]
    assert mux(Kind.RTP, Kind.SAVP) == []


def test_a_branch_is_deleted_by_its_name_and_a_dialog_by_its_two_tags() -> None:
    assert delete("call", "from", "b") == {
        "command": "delete",
        "call-id": "call",
        "delete delay": 0,
        "from-tag": "from",
        "via-branch": "b",
    }
    assert delete("call", "from", to_tag="to") == {
        "command": "delete",
        "call-id": "call",
        "delete delay": 0,
        "from-tag": "from",
        "to-tag": "to",
    }


@pytest.mark.parametrize(
    "reply",
    [None, {}, {"result": b"error", "error-reason": b"x"}, {"result": b"ok"}, {"result": b"ok", "sdp": 1}],
)
def test_a_reply_without_sdp_rewrites_nothing(reply: dict[str, object] | None) -> None:
    assert rewritten(reply) is None


def test_the_sdp_of_a_reply_is_taken_octet_for_octet() -> None:
    assert rewritten({"result": b"ok", "sdp": SDP}) == SDP
