"""Which credentials count, and challenges: everything about digests that needs no user (RFC 3261 section 22, RFC 8760).

The edge knows no HA1. It tells a nonce of ours from a forged or aged one, which is enough to answer a
storm without a record, a look-up or a transaction (CHECKLIST A15, S03).
"""

import enum
from collections.abc import Iterable, Mapping

from events.limits import USERNAME
from sipcore import nonce
from sipcore.digest import Credentials, challenge, select_credentials
from sipcore.message import Header


class Verdict(enum.Enum):
    """What the edge can say of a request's credentials."""

    USABLE = "usable"
    """Ours to check, with a live nonce: authsvc decides."""
    ABSENT = "absent"
    """None for our realm that anybody could check, or a forged or long dead nonce: a plain challenge."""
    STALE = "stale"
    """A genuine nonce that aged, not longer ago than it lived: a challenge with `stale=true`."""


def judge(
    values: Iterable[str], realm: str, algorithms: tuple[str, ...], keys: Mapping[str, bytes], now: int, lifetime: int
) -> tuple[Verdict, Credentials | None]:
    """The credentials among these Authorization values that count, and what they are worth `now` (seconds).

    Resolution of CHECKLIST A08 at the edge: whether the response to an aged nonce is right cannot be known
    here, and nothing may be published for it. So an aged genuine nonce is answered `stale=true` whatever
    the response; the client's retry with a fresh nonce is judged by authsvc, whose 401 for a wrong password
    says no `stale`. A client with a wrong password is thus told so one round later, and none loops.
    """
    credentials = select_credentials(values, realm, algorithms)
    if credentials is None or len(credentials.username) > USERNAME:
        # A name that fits no table is nobody's, and whoever counts failures would have to keep it.
        return Verdict.ABSENT, None
    worth = nonce.check(keys, realm, credentials.nonce, now, lifetime)
    if worth is nonce.Nonce.FRESH:
        return Verdict.USABLE, credentials
    if worth is nonce.Nonce.STALE and now - nonce.issued_at(credentials.nonce) < 2 * lifetime:
        return Verdict.STALE, None
    return Verdict.ABSENT, None


def challenges(realm: str, fresh: str, algorithms: Iterable[str], *, stale: bool, proxy: bool = False) -> list[Header]:
    """WWW-Authenticate (or Proxy-Authenticate), one for each algorithm in order (RFC 8760 section 2.4)."""
    name = "Proxy-Authenticate" if proxy else "WWW-Authenticate"
    return [(name, challenge(realm, fresh, algorithm, stale=stale)) for algorithm in algorithms]
