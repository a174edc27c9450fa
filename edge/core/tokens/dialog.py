"""What a Record-Route token says of a dialog (`edge.core.tokens.record_route` makes and reads it). PURE.

Apart from what makes it, so that that is compiled (setup.py).
"""

import msgspec

from edge.core.flow import Hop

PARTY = 5
"""Octets of marks: who guesses one gains a call's request to a phone of his own."""
NOBODY = bytes(PARTY)


class Marks(msgspec.Struct, frozen=True):
    """By what an end is known again; made and read by DialogTokens."""

    place: bytes = b""
    """Where its remote target led when the token was made; empty: nobody knows."""
    party: bytes = NOBODY
    """Whose phone it is."""
    direct: bool = False
    """Whether the remote target was at the very address of the hop: there is no NAT between."""


class Dialog(msgspec.Struct, frozen=True):
    """What a token says."""

    caller: Hop
    callee: Hop
    media: int = 0
    """What `edge.core.media.commands` must know of the call's legs; 0: media goes its own way."""
    caller_marks: Marks = Marks()
    callee_marks: Marks = Marks()
    begun: int = 0
    """When its INVITE passed, in milliseconds since 1970; 0: the token does not say."""
    cseq: int = 0
    """The CSeq number of that INVITE."""
