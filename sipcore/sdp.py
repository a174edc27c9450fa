"""What of a session description (RFC 8866) is told of a call: the names of its codecs, and nothing else."""

import re
from typing import Final

STATIC: Final = {
    0: "PCMU", 3: "GSM", 4: "G723", 5: "DVI4", 7: "LPC", 8: "PCMA", 9: "G722", 12: "QCELP", 15: "G728", 18: "G729",
    26: "JPEG", 31: "H261", 34: "H263",
}  # fmt: skip
"""Payload types that need no rtpmap (RFC 3551 section 6)."""
NO_CODECS: Final = frozenset({"telephone-event", "cn", "red", "rtx", "ulpfec", "flexfec-03"})
MOST: Final = 16
READ: Final = 16 * 1024
"""Octets that are read; a browser's offer has less than half as many."""
LINES: Final = 1000
_LONGEST: Final = 32
_MEDIA = re.compile(rb"m=(?:audio|video) [0-9/]+ [A-Z0-9/]+ ([0-9 ]+)")
# a=rtpmap:<payload type> <encoding name>/<clock rate>
_RTPMAP = re.compile(rb"a=rtpmap:([0-9]{1,3}) ([A-Za-z0-9._-]+)/")


def codecs(body: bytes) -> tuple[str, ...]:
    """The codecs' names of audio and video, in the order of preference, each once and at most MOST of them."""
    found: dict[str, None] = {}
    formats: list[int] = []
    names: dict[int, str] = {}
    for line in (*body[:READ].splitlines()[:LINES], b"m="):
        if line[:2] == b"m=":
            for number in formats:
                name = names.get(number) or STATIC.get(number)
                if name is not None and name.lower() not in NO_CODECS:
                    found.setdefault(name)
            media = _MEDIA.match(line)
            formats = [int(each) for each in media[1].split()[:64] if len(each) <= 3] if media else []
            names = {}
        elif match := _RTPMAP.match(line):
            names[int(match[1])] = match[2].decode()[:_LONGEST]
    return tuple(found)[:MOST]
