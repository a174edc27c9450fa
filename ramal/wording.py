"""How people write an AOR or a time, and how we write a time back."""

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sipcore.errors import ParseError
from sipcore.uri import aor as canonical
from sipcore.uri import parse_uri

_CLOCK = re.compile(r"(?:(yesterday|today)\s+)?(\d{1,2}):(\d\d)(?::(\d\d))?")
_DAYS = {"today": 0, "yesterday": 1}
"""Days that have a name, and how long ago they were."""


def command() -> str:
    """`ramal` as whoever reads this can type it: by its path where it is not on PATH."""
    started = Path(sys.argv[0])
    if started.name != "ramal":
        return f"{shlex.quote(sys.executable)} -m ramal"
    found = shutil.which("ramal")
    if found and Path(found).samefile(started):
        return "ramal"
    here = Path.cwd()
    return shlex.quote(str(started.relative_to(here) if started.is_relative_to(here) else started))


def aor(text: str, domain: str = "") -> str:
    """The canonical AOR of `alice@example.test`, `sip:alice@example.test` or, with a domain, `alice`.

    ValueError when it is none.
    """
    if domain and "@" not in text and ":" not in text:
        text = f"{text}@{domain}"
    uri = text if text.lower().startswith(("sip:", "sips:")) else f"sip:{text}"
    try:
        parsed = parse_uri(uri)
        if parsed.user is None:
            raise ValueError(f"{text!r} is not an address-of-record: it has no user, like alice@example.test")
        return canonical(parsed)
    except ParseError as error:
        raise ValueError(f"{text!r} is not an address-of-record like alice@example.test: {error}") from error


def name_and_domain(text: str, domain: str | None, served: Sequence[str]) -> tuple[str, str]:
    """Whom `dave`, `dave@example.test` or `sip:dave@example.test` names; `served` has the default domain first.

    ValueError for a domain that is not served, or two that differ.
    """
    address = re.sub("^sips?:", "", text, flags=re.IGNORECASE)
    name, at, own = address.rpartition("@")
    if not at:
        name, own = address, domain or served[0]
    if domain is not None and own.lower() != domain.lower():
        raise ValueError(f"{text!r} is not of the domain {domain}")
    if own.lower() not in served:
        known = ", ".join(served)
        raise ValueError(f"the domain {own} is not served; served are {known} (RAMAL_DOMAIN, RAMAL_DOMAINS)")
    if not name:
        raise ValueError(f"{text!r} has no user")
    return name, own.lower()


SIP_USER = re.compile(r"[A-Za-z0-9_.!~*'()&=+$,;?/-]+")
"""A user part that needs no escapes (RFC 3261 section 25.1): only such a name can be typed into every phone."""


def new_name(name: str) -> str:
    """The name of a user or alias that is to be made; ValueError for one that no SIP address can have as it stands."""
    if not SIP_USER.fullmatch(name):
        raise ValueError(f"{name!r} cannot stand in a SIP address: letters, digits and any of -_.!~*'()&=+$,;?/ can")
    return name


def counted(number: int, what: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number} {what}{'s' * (number != 1)}"


_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What a terminal would obey instead of showing it: controls (C0, C1) and marks that turn the direction of a line."""


def shown(text: str) -> str:
    """The text with a question mark for each character that a terminal would obey."""
    return _OBEYED.sub("?", text)


def listing(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """A table where it fits; on a narrower screen one block a row: no address is ever broken."""
    rows = [[shown(cell) for cell in row] for row in rows]  # before they are measured
    widths = [max([len(column), *(len(row[number]) for row in rows)]) for number, column in enumerate(columns)]
    if title:
        console.print(title, soft_wrap=True, markup=False)
    if sum(widths) + 2 * (len(columns) - 1) <= console.width:
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
        for column in columns:
            table.add_column(column, no_wrap=True)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)
        return
    label = max(map(len, columns[1:]), default=0)
    for first, *others in rows:
        console.print(f"[bold]{escape(first)}[/bold]", soft_wrap=True)
        for column, cell in zip(columns[1:], others, strict=True):
            if cell:
                console.print(f"  {column:<{label}}  {escape(cell)}", soft_wrap=True)


def zoned(text: str) -> tuple[str, tzinfo | None]:
    """A time or a day without the `UTC` or `Z` at its end, and that zone; None where none is said."""
    bare = re.sub(r"\s*(?:utc|(?<=\d)z)$", "", text.strip(), flags=re.IGNORECASE)
    return (bare, UTC) if bare != text.strip() else (bare, None)


def point_in_time(text: str, now: datetime) -> datetime:
    """`14:05`, `yesterday 14:05`, `2026-03-01 14:05`, each with `UTC` behind it or not, or ISO 8601 with a zone.

    A day alone is its begin. Local time where no zone is said. `now` is aware and local. ValueError for anything else.
    """
    bare, zone = zoned(text)
    here = now if zone is None else now.astimezone(zone)
    try:
        if clock := _CLOCK.fullmatch(bare.lower()):
            day, hour, minute, second = clock.groups()
            moment = datetime.combine(_named(day or "today", here), time(int(hour), int(minute), int(second or 0)))
        elif bare.lower() in _DAYS:
            moment = datetime.combine(_named(bare, here), time())
        else:
            moment = datetime.fromisoformat(bare)
        if zone is not None:
            moment = moment.replace(tzinfo=moment.tzinfo or zone)
        return moment.astimezone()  # the zone's offset of that day, not of today
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{text!r} is not a time: write 14:05, yesterday 14:05, 2026-03-01 14:05 or a day alone in local time, the"
            " same with UTC behind it, or 2026-03-01T14:05:00+01:00"
        ) from error


def _named(day: str, now: datetime) -> date:
    """The date of `today` or `yesterday`."""
    return now.date() - timedelta(days=_DAYS[day.lower()])


def one_day(text: str, now: datetime) -> tuple[datetime, datetime]:
    """Begin and end of `2026-03-01` or `yesterday`: of local time, or of UTC with that behind it; "" is today.

    `now` is aware and local. ValueError for anything else, and for a day that is not yet.
    """
    bare, zone = zoned(text)
    if zone is not None:
        now = now.astimezone(zone)
    try:
        day = _named(bare or "today", now) if bare.lower() in ("", *_DAYS) else date.fromisoformat(bare)
        if not date(1970, 1, 2) <= day <= now.date():
            raise ValueError(f"{text!r} is not a day on which there were calls")
    except ValueError as error:
        if "calls" in str(error):
            raise
        raise ValueError(f"{text!r} is not a date like 2026-03-01, yesterday, or 2026-03-01 UTC") from error
    ends = (datetime.combine(each, time(), zone) for each in (day, day + timedelta(days=1)))
    begin, end = (each.astimezone() if zone is None else each for each in ends)
    return begin, end


def local_time(milliseconds: int) -> str:
    """A moment as the operator's clock shows it, with date and zone."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
