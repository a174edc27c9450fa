"""How people write an AOR or a time, and how we write a time back."""

import re
from datetime import UTC, datetime, time, timedelta

from sipcore.errors import ParseError
from sipcore.uri import aor as canonical
from sipcore.uri import parse_uri

_CLOCK = re.compile(r"(?:(yesterday|today)\s+)?(\d{1,2}):(\d\d)(?::(\d\d))?")


def aor(text: str) -> str:
    """The canonical AOR of `alice@example.test` or `sip:alice@example.test`; ValueError when it is none."""
    uri = text if text.lower().startswith(("sip:", "sips:")) else f"sip:{text}"
    try:
        parsed = parse_uri(uri)
        if parsed.user is None:
            raise ValueError(f"{text!r} is not an address-of-record: it has no user, like alice@example.test")
        return canonical(parsed)
    except ParseError as error:
        raise ValueError(f"{text!r} is not an address-of-record like alice@example.test: {error}") from error


def point_in_time(text: str, now: datetime) -> datetime:
    """`14:05`, `yesterday 14:05`, `2026-03-01 14:05` or ISO 8601 with a zone; local time where no zone is said.

    `now` is aware and local. ValueError for anything else.
    """
    text = text.strip()
    if clock := _CLOCK.fullmatch(text.lower()):
        day, hour, minute, second = clock.groups()
        if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59:
            raise ValueError(f"{text!r} is no time of day")
        date = now.date() - timedelta(days=day == "yesterday")
        naive = datetime.combine(date, time(int(hour), int(minute), int(second or 0)))
        return naive.astimezone()  # the zone's offset of that day, not of today
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise ValueError(
            f"{text!r} is not a time: write 14:05, yesterday 14:05, 2026-03-01 14:05 or 2026-03-01T14:05:00+01:00"
        ) from error


def local_time(milliseconds: int) -> str:
    """A moment as the operator's clock shows it, with date and zone."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def duration(seconds: float) -> str:
    """`4 min 10 s`, `2 h 5 min`; coarse, for people."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
