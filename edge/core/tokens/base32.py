"""Base32 as tokens and branches have it: lower case, without padding (RFC 4648 section 6).

Python's `base64` goes octet by octet, which was a tenth of what a call cost. Here whole numbers are worked on: groups
of 5 bits are moved apart, by halves, until each has an octet of its own.
"""

from functools import cache
from typing import Final

_ALPHABET: Final = b"abcdefghijklmnopqrstuvwxyz234567"
_DIGITS: Final = b"0123456789abcdefghijklmnopqrstuv"
"""Of `int(…, 32)`."""
_LETTERS: Final = bytes(_ALPHABET[octet & 31] for octet in range(256))
_VALUES: Final = bytes.maketrans(_ALPHABET, _DIGITS)


def encode(octets: bytes) -> str:
    """The octets in base32."""
    groups = (8 * len(octets) + 4) // 5
    number = int.from_bytes(octets, "big") << (5 * groups - 8 * len(octets))
    for stay, move, shift in _halves(max(0, groups - 1).bit_length()):
        number = (number & stay) | ((number & move) << shift)
    return number.to_bytes(groups, "big").translate(_LETTERS).decode()


def decode(text: str) -> bytes:
    """The octets; ValueError for what `encode` does not make: other characters, lengths or last bits."""
    sent = text.encode("ascii")
    groups = len(sent)
    size = 5 * groups // 8
    spare = 5 * groups - 8 * size
    if spare > 4 or sent.translate(None, _ALPHABET):
        raise ValueError("no base32")
    number = int(sent.translate(_VALUES), 32) if sent else 0
    if number & ((1 << spare) - 1):
        raise ValueError("bits beyond the last octet")
    return (number >> spare).to_bytes(size, "big")


@cache
def _halves(steps: int) -> tuple[tuple[int, int, int], ...]:
    """For 2**steps groups, from their halves down to pairs: what stays, what moves, and how far."""
    found = []
    for step in reversed(range(steps)):
        half = (1 << (5 << step)) - 1
        stay = sum(half << (lane * (16 << step)) for lane in range(1 << (steps - 1 - step)))
        found.append((stay, stay << (5 << step), 3 << step))
    return tuple(found)
