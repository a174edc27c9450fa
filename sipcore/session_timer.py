"""Session timers, as a proxy treats them that keeps transactions and no calls (RFC 4028 sections 4, 5 and 8). PURE.

We ask for no timer of our own and shorten none, and never say who refreshes but where the RFC has us say it.
"""

from typing import Final

from sipcore.grammar import MAX_UINT32, uint
from sipcore.message import Message, Request, Response, Row

REFRESHES: Final = frozenset({"INVITE", "UPDATE"})
"""Session refresh requests (section 3)."""
LEAST: Final = 90
"""Seconds of the shortest session timer that anybody may ask for (section 5)."""


def session_expires(message: Message) -> int:
    """Seconds of the session timer; 0 where there is none, or none that can be read (section 4)."""
    return _seconds(message, "session-expires") or 0


def is_too_short(request: Request, least: int) -> bool:
    """Whether a refresh asks for less than `least` seconds, of a client that knows what 422 means (section 8.1)."""
    seconds = _seconds(request, "session-expires")
    return seconds is not None and seconds < least and request.method in REFRESHES and _does_timers(request)


def prolonged(request: Request, least: int) -> Request:
    """A refresh as it goes on: its timer no shorter than its Min-SE, and that than `least` (section 8.1).

    The Min-SE of a client that does timers itself is not ours to touch.
    """
    seconds = _seconds(request, "session-expires")
    if seconds is None or request.method not in REFRESHES:
        return request
    given = _seconds(request, "min-se")
    floor = LEAST if given is None else given
    rows = list(request.rows)
    if seconds < least and (given is None or given < least) and not _does_timers(request):
        floor = least
        rows = _with(rows, Row("min-se", "Min-SE", str(floor)))
    if seconds >= floor:
        return request
    _, semicolon, params = (request.first("session-expires") or "").partition(";")
    rows = _with(rows, Row("session-expires", "Session-Expires", f"{floor}{semicolon}{params}"))
    return Request(request.method, request.uri, rows, request.body)


def answered(response: Response, request: Request) -> Response:
    """A 2xx to a refresh as it goes back to a client that asked for a timer (section 8.2).

    Where nobody below does timers the client is told, by us who have let its timer pass, that it refreshes.
    """
    if not 200 <= response.status < 300 or (seconds := session_expires(request)) == 0:
        return response
    if request.method not in REFRESHES or response.first("session-expires") is not None or not _does_timers(request):
        return response
    rows = [*response.rows, Row("session-expires", "Session-Expires", f"{seconds};refresher=uac")]
    tags = response.values("require")
    if not any(tag.lower() == "timer" for tag in tags):
        rows = _with(rows, Row("require", "Require", ", ".join([*tags, "timer"])))
    return Response(response.status, response.reason, rows, response.body)


def _seconds(message: Message, name: str) -> int | None:
    value = message.first(name)
    return None if value is None else uint(value.partition(";")[0].strip(" \t"), MAX_UINT32)


def _does_timers(request: Request) -> bool:
    return any(tag.lower() == "timer" for tag in request.values("supported"))


def _with(rows: list[Row], new: Row) -> list[Row]:
    """The rows with this one in the place of all of its name, or behind them."""
    place = next((index for index, row in enumerate(rows) if row.name == new.name), len(rows))
    kept = [row for row in rows if row.name != new.name]
    return [*kept[:place], new, *kept[place:]]
