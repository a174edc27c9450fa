"""Why a phone cannot log in: what `audit` has of a user's failures in the last day."""

import contextlib
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from events.audit import AuditEvent, AuthenticationFailed
from events.topics import AUDIT
from events.wire import Decoder, Poisoned
from runtime.log.port import Log

HOURS = 24
"""How far back is looked."""
AT_MOST = 5_000
"""Records of a partition that are read for the console, the latest: whoever is attacked can still be asked about."""
_decode: Decoder[AuditEvent] = Decoder(AuditEvent)


class Failures(NamedTuple):
    """Failed log-ins of one user from one address, for one reason."""

    user: str
    aor: str
    source: str
    reason: str
    times: int
    last: int
    """Of the latest, milliseconds."""


async def failures(log: Log, aor: str, at_most: int = 0) -> list[Failures]:
    """Those of the last day in which somebody was this user, or asked for this AOR; the latest first.

    `at_most` records of a partition are read, 0: all. Raises LogUnavailable.
    """
    since = int(time.time() * 1000) - HOURS * 3_600_000
    told = []
    for number in range(await log.partitions(AUDIT)):
        begin, end = await log.offset_at(AUDIT, number, since), (await log.bounds(AUDIT, number)).end
        if at_most:
            begin = max(begin, end - at_most)
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


async def page(log: Log, aor: str) -> dict[str, Any]:
    """The same for the console."""
    return {"aor": aor, "failures": [each._asdict() for each in await failures(log, aor, AT_MOST)]}
