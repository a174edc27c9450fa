"""Who is logged in: sessions by the digest of their token, each with an end. PURE: time and tokens are arguments."""

from hashlib import sha256
from typing import NamedTuple

IDLE = 3_600_000
"""Milliseconds after which a session ends that nobody uses."""
LONGEST = 12 * 3_600_000
"""Milliseconds after which a session ends in any case."""
CAPACITY = 1000
"""Sessions at most; the one that was used longest ago goes first."""


class Session(NamedTuple):
    """One browser of an operator."""

    name: str
    proof: str
    """What the log-in was proved by; the session ends when that is another one."""
    csrf: str
    """What a request that changes something must bring along, beside the cookie."""
    begun: int
    """In milliseconds, as `used`."""
    used: int


class Sessions:
    """All sessions of this process. A token is nowhere kept: whoever reads our memory logs in as nobody."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, token: str, csrf: str, name: str, proof: str, at: int) -> Session:
        """A new session."""
        while self._sessions:  # in order of their last use
            oldest = next(iter(self._sessions))
            if len(self._sessions) < CAPACITY and not _is_over(self._sessions[oldest], at):
                break
            del self._sessions[oldest]
        session = self._sessions[_digest(token)] = Session(name, proof, csrf, at, at)
        return session

    def of(self, token: str, at: int) -> Session | None:
        """The session of this token, which is used now; None where there is none any more."""
        key = _digest(token)
        session = self._sessions.pop(key, None)
        if session is None or _is_over(session, at):
            return None
        used = self._sessions[key] = session._replace(used=at)
        return used

    def open(self, at: int) -> list[Session]:
        """All that are not over, the one that was used last at the end."""
        return [session for session in self._sessions.values() if not _is_over(session, at)]

    def end_all(self, name: str) -> None:
        """Ends those of one operator."""
        for key in [key for key, session in self._sessions.items() if session.name == name]:
            del self._sessions[key]

    def end(self, token: str) -> None:
        """Ends it."""
        self._sessions.pop(_digest(token), None)


def _is_over(session: Session, at: int) -> bool:
    return at - session.used >= IDLE or at - session.begun >= LONGEST


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
