"""The steps of a proxy that need nothing but the message (RFC 3261 section 16), each a function.

A proxied request differs from the received one only in Request-URI, Via, Max-Forwards, Max-Breadth, Route,
Record-Route, Content-Length and what is taken out by name (CHECKLIST P22); all other rows keep text and order.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from sipcore.address import parse_address
from sipcore.digest import parse_credentials
from sipcore.errors import ParseError
from sipcore.grammar import split_first, split_list, uint
from sipcore.message import Request, Response, Row
from sipcore.uri import Uri

MAX_FORWARDS: Final = 70
"""What a request without the header gets (section 16.6, step 3)."""
MAX_BREADTH: Final = 60
"""What a request without the header gets, and the most that one may have (RFC 5393 section 5.3.3)."""
CHALLENGES: Final = ("www-authenticate", "proxy-authenticate")
CHOSEN_FIRST: Final = (401, 407, 415, 420, 484)
"""Of the 4xx, those by which the client can do better (section 16.7, step 6)."""


def hops_left(request: Request) -> int:
    """Max-Forwards; 70 where it is absent (section 16.6, step 3)."""
    text = request.first("max-forwards")
    hops = None if text is None else uint(text, 255)
    return MAX_FORWARDS if hops is None else hops


def max_breadth(request: Request) -> int | None:
    """Max-Breadth, at most 60; None where it is absent or no number (RFC 5393 section 5.3.3)."""
    text = request.first("max-breadth")
    if text is None or not (text.isascii() and text.isdigit()):
        return None
    breadth = uint(text, MAX_BREADTH)
    return MAX_BREADTH if breadth is None else breadth


def shares(breadth: int, branches: int) -> list[int]:
    """Max-Breadth divided among as many branches, which are no more than it (RFC 5393 section 5.3.3)."""
    share, more = divmod(breadth, branches)
    return [share + (branch < more) for branch in range(branches)]


def request_uri(contact: Uri) -> str:
    """A stored Contact as a Request-URI: without headers and `method` (section 16.6, step 2; section 19.1.1)."""
    if not contact.headers and contact.param("method") is None:
        return str(contact)
    params = tuple(param for param in contact.params if param[0].lower() != "method")
    return str(Uri(contact.scheme, contact.user, contact.password, contact.host, contact.port, params, ""))


def by_scheme(uri: str, *, secure: bool) -> str | None:
    """The Request-URI for a target; None where what asks for a sips: URI (`secure`) would go on to another.

    Whether it is sips: is the request's to say, not the binding's (RFC 5630 section 5.3).
    """
    if uri[:5].lower() == "sips:":
        return uri if secure else f"sip:{uri[5:]}"
    return None if secure else uri


def loop_digest(request: Request) -> str:
    """All that decides where a request goes next, as 8 hex digits (section 16.6, step 8; RFC 5393 section 4.2).

    The same digest in a Via of ours means a loop, another one a spiral. The topmost Via, which is another
    at every turn, has no part in it.
    """
    parts = [request.uri, request.call_id, request.from_.tag or "", request.to.tag or "", str(request.cseq.number)]
    if request.first("route") is not None or request.first("proxy-require") is not None:
        parts += [row.value for row in request.rows if row.name in ("route", "proxy-require")]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def without_credentials(rows: Iterable[Row], realms: Iterable[str]) -> list[Row]:
    """The rows without Proxy-Authorization of these realms (section 22.3; CHECKLIST A12)."""
    ours = tuple(realms)
    kept = []
    for row in rows:
        if row.name == "proxy-authorization":
            credentials = parse_credentials(row.value)
            if credentials is not None and credentials.realm in ours:
                continue
        kept.append(row)
    return kept


def proxied(
    request: Request,
    uri: str,
    via: str,
    *,
    record_routes: Sequence[str] = (),
    routes: Sequence[str] | None = None,
    rows: Iterable[Row] | None = None,
    body: bytes | None = None,
    breadth: int = MAX_BREADTH,
) -> Request:
    """The request as it goes to one target (section 16.6, steps 1 to 8), with this share of its Max-Breadth.

    `via` is our Via value, `record_routes` our Record-Route values, the topmost first, `routes` all Route values
    it leaves with (None: those it has), `rows` the received rows after what had to be taken out.
    """
    hops = hops_left(request) - 1
    if routes:
        uri, routes = _for_next_hop(uri, routes)
    new = [Row("via", "Via", via)]
    new += [Row("record-route", "Record-Route", value) for value in record_routes]
    if routes:
        new.append(Row("route", "Route", ", ".join(routes)))
    has_hops = has_breadth = False
    for row in request.rows if rows is None else rows:
        name = row.name
        if name == "max-forwards":
            row = Row(name, row.original, str(hops))
            has_hops = True
        elif name == "max-breadth":
            if has_breadth:
                continue
            row = Row(name, row.original, str(breadth))
            has_breadth = True
        elif name == "route" and routes is not None:
            continue
        new.append(row)
    if not has_hops:
        new.append(Row("max-forwards", "Max-Forwards", str(hops)))
    if not has_breadth:
        new.append(Row("max-breadth", "Max-Breadth", str(breadth)))
    return Request(request.method, uri, new, request.body if body is None else body)


def _for_next_hop(uri: str, routes: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Request-URI and Route values; a strict router finds itself in the former (section 16.6, step 6)."""
    try:
        first = parse_address(routes[0]).parsed_uri
    except ParseError:
        return uri, routes  # not ours to read, and not ours to change
    if first.param("lr") is not None:
        return uri, routes
    return request_uri(first), (*routes[1:], f"<{uri}>")


def without_top_via(response: Response) -> Response | None:
    """The response as it goes upstream; None if no Via is left: it was for us (section 16.7, step 3)."""
    rows = list(response.rows)
    index = next(index for index, row in enumerate(rows) if row.name == "via")
    if rest := split_first(rows[index].value)[1]:
        rows[index] = Row("via", rows[index].original, rest)
    else:
        del rows[index]
        below = [each.value for each in rows[index:] if each.name == "via"]
        if not any(below):
            return None
        rest = below[0]
    upward = Response(response.status, response.reason, rows, response.body)
    upward.like(response, rest)
    return upward


def fits(response: Response, request: Request) -> bool:
    """Whether the sender of a request can tell that this is a response to it (section 17.1.3)."""
    try:
        same = response.first("via") == request.first("via")  # as a rule: nobody has to read it
        same = same or response.via.branch.lower() == request.via.branch.lower()
        return same and is_of(response, request.method)
    except ParseError:
        return False


def is_of(response: Response, method: str) -> bool:
    """Whether a response says that it is one to a request of this method."""
    try:
        return response.cseq.method == method
    except ParseError:
        return False


def unfit(response: Response) -> Response:
    """What is left of a response that is not to be passed on: all but the Via values below the top one, and the body.

    So it is still told whose it is, and that its branch has ended.
    """
    rows: list[Row] = []
    for row in response.rows:
        if row.name != "via":
            rows.append(row)
        elif not any(each.name == "via" for each in rows):
            rows.append(Row("via", row.original, split_first(row.value)[0]))
    return Response(response.status, response.reason, rows)


def best(responses: Sequence[Response], *, cancelled: bool = False) -> Response:
    """The final response to be forwarded of all that came; there is at least one (section 16.7, steps 6 and 7).

    Any 6xx, else the lowest class, within 4xx one by which the client can do better; a 503 goes on as 500. Once it is
    `cancelled` by the client a 487 comes before all but 6xx. Challenges of all 401 and 407 are gathered into it
    (CHECKLIST A13, Y21, Y22).
    """
    chosen = min(enumerate(responses), key=lambda each: (*_rank(each[1].status, cancelled), each[0]))[1]
    if chosen.status in (401, 407):
        chosen = _with_challenges(chosen, responses)
    if chosen.status == 503:
        chosen = Response(500, "Server Internal Error", chosen.rows, chosen.body)
    return chosen


def _rank(status: int, cancelled: bool) -> tuple[int, int]:
    if status >= 600:
        return (0, 0)
    if cancelled and status == 487:
        return (0, 1)
    if status in CHOSEN_FIRST:
        return (status // 100, 0)
    # 503 would tell the client to leave us alone; 408 and 430 say least of why nobody answered.
    return (status // 100, 2 if status in (408, 430, 503) else 1)


def _with_challenges(chosen: Response, responses: Sequence[Response]) -> Response:
    rows = list(chosen.rows)
    for response in responses:
        if response is not chosen and response.status in (401, 407):
            rows += [row for row in response.rows if row.name in CHALLENGES and row not in rows]
    return Response(chosen.status, chosen.reason, rows, chosen.body)


def route_values(request: Request) -> list[str]:
    """All Route values in order, each as sent; ParseError where quotes do not end, and where there are too many."""
    return [element for value in request.counted("route") for element in split_list(value) if element]


def unsupported(request: Request, name: str, known: Iterable[str]) -> list[str]:
    """The option tags of `require` or `proxy-require` that are not among the known ones (lower case)."""
    if request.first(name) is None:
        return []
    return [tag for tag in request.values(name) if tag.lower() not in known]


def to_tag(response: Response) -> str:
    """The tag in To; "" where there is none that can be read."""
    try:
        return response.to.tag or ""
    except ParseError:
        return ""


def has_to_tag(request: Request) -> bool:
    """Whether the request says that it belongs to a dialog."""
    try:
        return request.to.tag is not None
    except ParseError:
        return False
