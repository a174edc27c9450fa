"""What rtpengine is asked to do with the SDP of a call: the commands of its ng protocol, without a cookie.

Media goes directly between phones unless the domain says otherwise (CHECKLIST N17). rtpengine then stands between
two legs, each of a kind, and rewrites each SDP for the leg that it goes to; what the sender speaks, it reads in
the SDP itself. So an offer is told the answerer's kind, and an answer the offerer's. The flags were read in the
manual of rtpengine 10.5.3 (Debian 12) and of 2026 ("The ng control protocol"), and tried on the former.

Tags are told by who offers, not by the direction of the SIP message: where the offer is in a 2xx and the answer in
its ACK (RFC 3264 section 5, RFC 3261 section 13.2.1), the offerer's tag is the one in To. Both go with everything
that both are known to. The same holds for re-INVITE, UPDATE and PRACK: a new offer with both tags.
"""

from enum import IntEnum

from edge.core.settings import Mode


class Kind(IntEnum):
    """What a leg's phone speaks."""

    RTP = 0
    """RTP/AVP, in the clear."""
    SAVP = 1
    """RTP/SAVP with keys in the SDP (RFC 4568)."""
    WEBRTC = 2
    """UDP/TLS/RTP/SAVPF: ICE, DTLS-SRTP, RTP and RTCP on one port (RFC 8827, RFC 8834)."""


def leg_kind(transport: str, srtp: tuple[str, ...] = ()) -> Kind:
    """The kind of a phone that speaks SIP by this transport; `srtp` are the transports whose phones want SAVP."""
    if transport in ("ws", "wss"):
        return Kind.WEBRTC
    return Kind.SAVP if transport in srtp else Kind.RTP


def needs_relay(mode: Mode, caller: Kind, callee: Kind) -> bool:
    """Whether rtpengine stands between these two legs."""
    if mode == "bridge":
        return (caller is Kind.WEBRTC) != (callee is Kind.WEBRTC)
    return mode == "relay"


def legs(caller: Kind, callee: Kind) -> int:
    """A relayed call's two kinds as one octet for its Record-Route token; never 0, which means direct media."""
    return 1 + 3 * caller + callee


def kinds(octet: int) -> tuple[Kind, Kind] | None:
    """Caller's and callee's kind by what `legs` made; None: direct media (or an octet that it never makes)."""
    if not 1 <= octet <= 9:
        return None
    caller, callee = divmod(octet - 1, 3)
    return Kind(caller), Kind(callee)


def offer(
    call_id: str, from_tag: str, via_branch: str, sdp: bytes, offerer: Kind, answerer: Kind, to_tag: str = ""
) -> dict[str, object]:
    """Asks for an offer's SDP as the answerer is to see it.

    `from_tag` is the offerer's. `via_branch` is the branch that the INVITE goes out with, one for each callee it
    is forked to; "" within a dialog, where `to_tag` is the answerer's.
    """
    return {
        "command": "offer",
        **_participants(call_id, from_tag, to_tag, via_branch),
        "sdp": sdp,
        "replace": ["origin"],
        "rtcp-mux": _rtcp_mux(offerer, answerer),
        **_TOWARDS[answerer],
    }


def answer(
    call_id: str, from_tag: str, via_branch: str, to_tag: str, sdp: bytes, offerer: Kind, answerer: Kind
) -> dict[str, object]:
    """Asks for an answer's SDP (in a reliable or unreliable 18x, a 2xx, an ACK or a PRACK) as the offerer is to see it.

    `from_tag` is the offerer's and `to_tag` the answerer's; `via_branch` as in the offer.
    """
    del answerer  # rtpengine knows: it made the offer to him
    return {
        "command": "answer",
        **_participants(call_id, from_tag, to_tag, via_branch),
        "sdp": sdp,
        "replace": ["origin"],
        # The protocol is the one that was offered (RFC 3264 section 6), whatever the kind: rtpengine has kept it.
        "ICE": _TOWARDS[offerer]["ICE"],
    }


def delete(call_id: str, from_tag: str, via_branch: str | None = None, *, to_tag: str = "") -> dict[str, object]:
    """Frees one branch at once; or, without `via_branch`, what the caller has with the callee of this `to_tag`.

    Several may have answered one INVITE. With the last of its callees rtpengine frees the call. Only a branch that was
    offered may be named: for one that rtpengine does not know it deletes the caller's side.
    """
    return {
        "command": "delete",
        "delete delay": 0,
        **_participants(call_id, from_tag, to_tag, via_branch or ""),
    }


def rewritten(reply: dict[str, object] | None) -> bytes | None:
    """The SDP in the reply to an offer or answer; None if there was no reply, or it is an error."""
    sdp = reply.get("sdp") if reply and reply.get("result") == b"ok" else None
    return sdp if isinstance(sdp, bytes) else None


def _participants(call_id: str, from_tag: str, to_tag: str, via_branch: str) -> dict[str, object]:
    named = {"call-id": call_id, "from-tag": from_tag, "to-tag": to_tag, "via-branch": via_branch}
    return {key: text for key, text in named.items() if text}


_RARE_SUITES = ("F8_128_HMAC_SHA1_80", "F8_128_HMAC_SHA1_32", "AES_192_CM_HMAC_SHA1_80", "AES_192_CM_HMAC_SHA1_32")

_TOWARDS: dict[Kind, dict[str, object]] = {
    Kind.RTP: {"transport-protocol": "RTP/AVP", "ICE": "remove"},
    # Keys and no DTLS fingerprint; and nothing that only looks encrypted, nor so many suites that no datagram holds it.
    Kind.SAVP: {
        "transport-protocol": "RTP/SAVP",
        "ICE": "remove",
        "DTLS": "off",
        "SDES": [f"no-{suite}" for suite in ("NULL_HMAC_SHA1_80", "NULL_HMAC_SHA1_32", *_RARE_SUITES)],
    },
    # A browser refuses keys in the SDP (RFC 8827 section 6.5), and needs the mid (RFC 8829 section 5.2.1).
    Kind.WEBRTC: {
        "transport-protocol": "UDP/TLS/RTP/SAVPF",
        "ICE": "force",
        "SDES": ["off"],
        "flags": ["generate-mid"],
    },
}


def _rtcp_mux(offerer: Kind, answerer: Kind) -> list[str]:
    """A browser has no other port for RTCP (RFC 8834 section 4.5); a desk phone expects one of its own."""
    if answerer is Kind.WEBRTC:
        return ["require"]
    return ["demux"] if offerer is Kind.WEBRTC else []
