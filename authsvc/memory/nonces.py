"""Which uses of a nonce have been seen (CHECKLIST A09). Pure, bounded; one object per partition.

Theory. `auth.commands` is keyed by digest user and realm, so all uses of a nonce by one user meet in
one partition, in order. Each (user, nonce) has a window of the 64 highest nc values: nc may come out of order
within it and never twice. Only right responses are entered, so nobody without a password fills it.

Windows lie in buckets by the second their nonce was made in. A bucket goes when its nonces have expired, and
the oldest bucket goes when there are too many windows; then `floor` rises: a nonce made at or before it that
has no window is one we may have forgotten, and is stale. Whoever takes a partition over begins with the floor
a little below the last command that its predecessor finished, and with the nonces used since then as *suspects*:
a floor above that command would refuse, for a second or two, every nonce that a phone is given just now.
"""

import enum

import msgspec

WIDTH = 64
"""How far behind the highest nc another may come."""
_FULL = (1 << WIDTH) - 1
_SPENT = 1 << 32
"""Above every nc (8 hex digits): a nonce that was used without qop, and serves no more."""
MARKS = 4
"""How many of the last uses are remembered by what they were, so that a copy of one is known again."""
COPY_MILLISECONDS = 30_000
"""For how long a copy is a retransmission; the registrar remembers 32 s, from a later moment (CHECKLIST R19)."""


class Use(enum.Enum):
    """What a right response's nonce and nc turn out to be."""

    FIRST = "first"
    COPY = "copy"
    """The same request again: a retransmission, to be answered as the first was."""
    REPEATED = "repeated"
    """The same nonce and nc on another request, or an nc behind the window."""
    FORGOTTEN = "forgotten"
    """Too old to know whether it was used."""


class _Window(msgspec.Struct, gc=False):
    """The nc values used with one nonce by one user."""

    top: int
    """The highest nc used."""
    used: int
    """Bit i: nc `top - i` was used."""
    marks: tuple[tuple[int, int, int], ...]
    """(nc, fingerprint, milliseconds) of the last uses, newest last."""


class Replays:
    """The windows of one partition."""

    def __init__(
        self, lifetime: int, capacity: int, floor: int | None = -1, suspects: frozenset[int] = frozenset()
    ) -> None:
        """`lifetime` of a nonce in seconds; `floor`: nonces made in or before this second may have been used,
        and of later ones those with a key in `suspects`. None: whatever was made before the first look may have."""
        self._lifetime = lifetime
        self._capacity = capacity
        self._buckets: dict[int, dict[int, _Window]] = {}
        self._swept = 0
        self.floor = -1 if floor is None else floor
        self._unknown = floor is None
        self._suspects = suspects
        self.size = 0

    def look(self, key: int, made: int, nc: int | None, fingerprint: int, at: int) -> Use:
        """What this use is; enters nothing. `key` stands for user and nonce, `made` is the nonce's second."""
        if self._unknown:
            self._unknown, self.floor = False, at // 1000
        bucket = self._buckets.get(made)
        window = bucket.get(key) if bucket else None
        if window is None:
            return Use.FIRST if made > self.floor and key not in self._suspects else Use.FORGOTTEN
        number = _SPENT if nc is None else nc
        for marked, print_, when in window.marks:
            if marked == number and print_ == fingerprint and at - when < COPY_MILLISECONDS:
                return Use.COPY
        if nc is None:
            return Use.REPEATED
        behind = window.top - nc
        if behind < 0:
            return Use.FIRST
        return Use.REPEATED if behind >= WIDTH or window.used >> behind & 1 else Use.FIRST

    def enter(self, key: int, made: int, nc: int | None, fingerprint: int, at: int) -> None:
        """Remembers a use that `look` called FIRST."""
        self._sweep(at // 1000)
        number = _SPENT if nc is None else nc
        mark = (number, fingerprint, at)
        window = self._buckets[made].get(key) if made in self._buckets else None
        if window is None:
            if self.size >= self._capacity:
                self._drop(min(self._buckets))
            bucket = self._buckets.setdefault(made, {})
            bucket[key] = _Window(number, _FULL if nc is None else 1, (mark,))
            self.size += 1
            return
        ahead = number - window.top
        if ahead > 0:
            window.used = (window.used << ahead | 1) & _FULL if ahead < WIDTH else 1
            window.top = number
        else:
            window.used |= 1 << -ahead
        window.marks = (*window.marks[1 - MARKS :], mark)

    def _sweep(self, second: int) -> None:
        """Drops the buckets of nonces that have expired; the nonce's own age refuses those."""
        if second == self._swept:
            return
        self._swept = second
        for made in [made for made in self._buckets if made < second - self._lifetime - 1]:
            self.size -= len(self._buckets.pop(made))

    def _drop(self, made: int) -> None:
        """Forgets the windows of one second and all that may have been used before it."""
        self.size -= len(self._buckets.pop(made))
        self.floor = max(self.floor, made)
