"""Why a phone cannot log in: what `audit` has of a user's failures."""

import contextlib
import time
from collections.abc import Iterable
from typing import NamedTuple

from rich.console import Console

from events.audit import AuthenticationFailed, ContactsRemoved, EnrolmentTried
from events.topics import AUDIT
from events.wire import Decoder, Poisoned
from ramal.wording import counted, listing, local_time
from runtime.log.port import Log

HOURS = 24
"""How far back is looked."""
_WHY = {
    "wrong response": "wrong password, or another realm in the phone than the domain",
    "unknown user": "no source of users has this name",
    "user name with domain": "the phone's user name has the domain behind it: here it is the name alone",
    "no HA1": "the directory has only a hash of the password, or none for the algorithm: enrol",
    "not this user's AOR": "the password is right, but the address is somebody else's",
    "locked out": "too many wrong passwords from that address: it waits",
}
_decode: Decoder[AuthenticationFailed | ContactsRemoved | EnrolmentTried] = Decoder(
    AuthenticationFailed | ContactsRemoved | EnrolmentTried
)


class Failures(NamedTuple):
    """Failed log-ins of one user from one address, for one reason."""

    user: str
    aor: str
    source: str
    reason: str
    times: int
    last: int
    """Of the latest, milliseconds."""


async def failures(log: Log, aor: str) -> list[Failures]:
    """Those of the last day in which somebody was this user, or asked for this AOR; the latest first."""
    since = int(time.time() * 1000) - HOURS * 3_600_000
    told = []
    for number in range(await log.partitions(AUDIT)):
        begin, end = await log.offset_at(AUDIT, number, since), (await log.bounds(AUDIT, number)).end
        if begin >= end:
            continue
        async with contextlib.aclosing(log.read(AUDIT, number, begin, end)) as batches:
            async for records in batches:
                for record in records:
                    with contextlib.suppress(Poisoned):  # in the dead letters
                        event = _decode(record.value)
                        if isinstance(event, AuthenticationFailed) and aor in (event.user, event.aor):
                            told.append((record.timestamp, event))
    return gathered(told)


def gathered(told: Iterable[tuple[int, AuthenticationFailed]]) -> list[Failures]:
    """The same failure as often as it came, with the time of the latest; the latest first."""
    found: dict[AuthenticationFailed, tuple[int, int]] = {}
    for at, event in told:
        times, last = found.get(event, (0, 0))
        found[event] = (times + 1, max(last, at))
    rows = [Failures(each.user, each.aor, each.source, each.reason, *found[each]) for each in found]
    return sorted(rows, key=lambda row: row.last, reverse=True)


def show(console: Console, aor: str, found: list[Failures]) -> None:
    """What people read of it; where there is nothing, what that says."""
    if not found:
        console.print(
            f"No failed log-in in {HOURS} hours. If a phone of {aor} does not register (`ramal show {aor}`), it does"
            " not get as far as a password: address, port, firewall, or a domain that is not served.",
            soft_wrap=True,
        )
        return
    console.print(f"Failed log-ins of the last {HOURS} hours (at most 6 a minute from one address are recorded):")
    rows = [
        (
            local_time(row.last),
            counted(row.times, "time"),
            row.source,
            row.user if row.user == row.aor else f"{row.user} for {row.aor}",
            _WHY.get(row.reason, row.reason),
        )
        for row in found
    ]
    listing(console, ("Last", "How often", "From", "As", "Why"), rows)
