"""Record-Route tokens: what an edge must know of a dialog, carried by the dialog itself (DESIGN section 8).

A token names both next hops. Its HMAC covers them with the Call-ID and the caller's tag, so a request that brings
it belongs to this dialog and goes to one of its two ends, whatever else it says: it is not challenged, and any
live edge takes it (CHECKLIST Y12, Y35, N10). Marks of both ends tell whether a URI still leads to where it did and
whose binding is that end's, and nothing to others. A token is lower-case base32 of

    key id, time, kinds of media, hop towards the caller, hop towards the callee, marks of the caller, marks of the
    callee, beginning, then 10 octets of HMAC-SHA-256

The time is when it was made, in minutes since 1970: nobody keeps the way to a phone for longer than LIFETIME. The
beginning tells whoever has only the BYE of a call which call it was: when its INVITE passed, in milliseconds since
1970, and that one's CSeq number.

A hop is: flags (transport, IPv6, owner), the owner's edge and boot if it is a phone's flow, addresses and ports.
Marks are 4 octets of an HMAC of the remote target's place, 5 of the AOR (zeros: none), one that says if the target
was at the hop's own address. Tokens of before there were marks, or beginnings, have none.
"""

import hmac
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from edge.core.addresses import packed
from edge.core.flow import TRANSPORTS, Flow, Hop
from edge.core.place import Place
from edge.core.tokens import base32
from edge.core.tokens.dialog import NOBODY, PARTY, Dialog, Marks
from sipcore import mac

MAC = 10
PURPOSE = b"ramal record-route\x00"
MARKS = b"ramal dialog marks\x00"
LONGEST = 800
LIFETIME = 24 * 60
"""Minutes for which a token leads anywhere; no call is longer."""
MINUTE = 60_000
"""In milliseconds."""
IPV6 = 0x80
OWNED = 0x40
CONNECTION = 0x20
TRANSPORT = 0x07
PLACE = 4
MARKED = 2 * (PLACE + PARTY + 1)
BEGINNING = 6 + 4
REMEMBERED = 20_000
"""Tokens and hops of which it is known what they say."""
CALLS = 4096
"""Calls of which proofs and marks are kept from one message to the next: ACK asks for those of INVITE, BYE for both."""


class _Opened:
    """What a token of ours says, of whatever call."""

    __slots__ = ("dialog", "key_id", "minute", "payload", "proof")

    def __init__(self, dialog: Dialog, minute: int, key_id: str, payload: bytes, proof: bytes) -> None:
        self.dialog = dialog
        self.minute = minute
        """When it was made."""
        self.key_id = key_id
        self.payload, self.proof = payload, proof


class DialogTokens:
    """Makes and verifies the tokens of all dialogs."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """The first key signs, all verify; as with flow tokens, ids are short texts."""
        self._keys = dict(keys)
        self._signing = next(iter(self._keys))
        self._opened = lru_cache(maxsize=REMEMBERED)(self._open)
        self._fitting = lru_cache(maxsize=CALLS)(self._fits)

    def make(self, dialog: Dialog, call_id: str, caller_tag: str, at: int) -> str:
        """The token of a dialog that the caller with this tag begins; `at` in milliseconds since 1970."""
        head = _text(self._signing) + (at // MINUTE).to_bytes(4, "big") + bytes((dialog.media,))
        payload = head + _packed(dialog.caller) + _packed(dialog.callee)
        payload += _marked(dialog.caller_marks) + _marked(dialog.callee_marks)
        payload += _beginning(dialog)
        return base32.encode(payload + self._mac(self._signing, payload, call_id, caller_tag))

    def open(self, token: str, call_id: str, tags: tuple[str, str], at: int) -> tuple[Dialog, bool] | None:
        """The dialog of a genuine token that is not too old, and whether the request goes towards the callee.

        `tags` are those of From and To: the caller's is From's on the way to the callee. None for a token that is
        changed, foreign, or another call's.
        """
        opened = self._look(token)
        if opened is None or at // MINUTE - opened.minute > LIFETIME:
            return None
        try:
            return opened.dialog, self._fitting(opened, call_id, tags)
        except ValueError:
            return None

    def _fits(self, opened: "_Opened", call_id: str, tags: tuple[str, str]) -> bool:
        """Whether From's tag is that of the caller, else To's is; raises where neither is, so that no proof is kept."""
        for index, tag in enumerate(tags):
            if tag and hmac.compare_digest(opened.proof, self._mac(opened.key_id, opened.payload, call_id, tag)):
                return index == 0
        raise ValueError("another call's")

    def marks(self, call_id: str, place: Place | None, aor: str, *, direct: bool) -> Marks:
        """The marks of an end with this remote target; `aor` is "" for who is no user of ours."""
        key = self._keys[self._signing]
        party = _mark(key, call_id, f"party {aor}", PARTY) if aor else NOBODY
        return Marks(b"" if place is None else _mark(key, call_id, f"place {place}", PLACE), party, direct)

    def is_at(self, marks: Marks, call_id: str, place: Place) -> bool:
        """Whether an end's remote target led to this place, or nobody knows where."""
        return not marks.place or any(
            hmac.compare_digest(marks.place, _mark(key, call_id, f"place {place}", PLACE))
            for key in self._keys.values()
        )

    def is_party(self, marks: Marks, call_id: str, aor: str) -> bool:
        """Whether an end is a phone of this AOR."""
        return marks.party != NOBODY and any(
            hmac.compare_digest(marks.party, _mark(key, call_id, f"party {aor}", PARTY)) for key in self._keys.values()
        )

    def is_ours(self, token: str) -> bool:
        """Whether a text has the form of such a token, genuine or not."""
        return self._look(token) is not None

    def _look(self, token: str) -> "_Opened | None":
        # Checked before it is remembered: any user part of any request comes here.
        return self._opened(token.lower()) if token.isascii() and len(token) <= LONGEST else None

    def _mac(self, key_id: str, payload: bytes, call_id: str, caller_tag: str) -> bytes:
        covered = b"\0".join((PURPOSE, payload, f"{call_id}\0{caller_tag}".encode("utf-8", "surrogateescape")))
        return mac.digest(self._keys[key_id], covered)[:MAC]

    def _open(self, token: str) -> "_Opened | None":
        try:
            octets = base32.decode(token)
            payload, proof = octets[:-MAC], octets[-MAC:]
            key_id, rest = _read_text(payload)
            if key_id not in self._keys:
                return None
            minute, media, rest = int.from_bytes(rest[:4], "big"), rest[4], rest[5:]
            caller, rest = _unpacked(rest)
            callee, rest = _unpacked(rest)
        except (IndexError, ValueError):
            return None
        if not rest:
            return _Opened(Dialog(caller, callee, media), minute, key_id, payload, proof)
        if len(rest) not in (MARKED, MARKED + BEGINNING):
            return None
        marks, beginning = rest[:MARKED], rest[MARKED:]
        half = MARKED // 2
        begun, cseq = int.from_bytes(beginning[:6], "big"), int.from_bytes(beginning[6:], "big")
        dialog = Dialog(caller, callee, media, _marks(marks[:half]), _marks(marks[half:]), begun, cseq)
        return _Opened(dialog, minute, key_id, payload, proof)


@lru_cache(maxsize=REMEMBERED)
def _packed(hop: Hop) -> bytes:
    flow = hop.flow
    remote = packed(flow.remote_host)
    flags = TRANSPORTS.index(flow.transport)
    if len(remote) == 16:
        flags |= IPV6
    if hop.edge:
        flags |= OWNED | (CONNECTION if flow.connection else 0)
    octets = bytes((flags,)) + remote + flow.remote_port.to_bytes(2, "big")
    if hop.edge:
        octets += packed(flow.local_host) + flow.local_port.to_bytes(2, "big") + _text(hop.edge)
        if flow.connection:
            octets += _text(hop.boot) + flow.connection.to_bytes(6, "big")
    return octets


def _unpacked(octets: bytes) -> tuple[Hop, bytes]:
    end = _end_of_hop(octets)
    if end > len(octets):
        raise ValueError("cut short")
    return _hop(octets[:end]), octets[end:]


def _end_of_hop(octets: bytes) -> int:
    """Where a hop that begins here ends."""
    flags = octets[0]
    size = (16 if flags & IPV6 else 4) + 2
    end = 1 + size
    if flags & OWNED:
        end += size
        end += 1 + octets[end]
        if flags & CONNECTION:
            end += 1 + octets[end] + 6
    return end


@lru_cache(maxsize=REMEMBERED)
def _hop(octets: bytes) -> Hop:
    """The hop of octets whose length is right; most calls are to phones that were called before."""
    flags = octets[0]
    size = 16 if flags & IPV6 else 4
    remote, octets = _address(octets[1 : 3 + size]), octets[3 + size :]
    transport = TRANSPORTS[flags & TRANSPORT]
    if not flags & OWNED:
        return Hop(Flow(transport, "", 0, *remote))
    local, octets = _address(octets[: 2 + size]), octets[2 + size :]
    edge, octets = _read_text(octets)
    boot, connection = "", 0
    if flags & CONNECTION:
        boot, octets = _read_text(octets)
        connection = int.from_bytes(octets, "big")
    return Hop(Flow(transport, *local, *remote, connection), edge, boot)


@lru_cache(maxsize=CALLS)
def _mark(key: bytes, call_id: str, text: str, size: int) -> bytes:
    """Never zeros, which mean that there is none."""
    covered = MARKS + f"{call_id}\0{text}".encode("utf-8", "surrogateescape")
    return mac.digest(key, covered)[:size].replace(bytes(size), b"\1" * size)


def _marked(marks: Marks) -> bytes:
    return (marks.place or bytes(PLACE)) + marks.party + bytes((marks.direct,))


def _beginning(dialog: Dialog) -> bytes:
    return dialog.begun.to_bytes(6, "big") + dialog.cseq.to_bytes(4, "big")


def _marks(octets: bytes) -> Marks:
    place, party, direct = octets[:PLACE], octets[PLACE:-1], octets[-1]
    return Marks(b"" if place == bytes(PLACE) else place, party, bool(direct))


def _address(octets: bytes) -> tuple[str, int]:
    host, port = octets[:-2], int.from_bytes(octets[-2:], "big")
    return str(IPv4Address(host) if len(host) == 4 else IPv6Address(host)), port


def _text(value: str) -> bytes:
    octets = value.encode()
    return bytes((len(octets),)) + octets


def _read_text(octets: bytes) -> tuple[str, bytes]:
    end = 1 + octets[0]
    return octets[1:end].decode(), octets[end:]
