"""The requests that a transaction makes of its own INVITE, for its next hop alone: ACK to a non-2xx, and CANCEL."""

from collections.abc import Iterable

from sipcore.grammar import split_list
from sipcore.message import Request, Response, Row, row


def ack(invite: Request, response: Response) -> Request:
    """The ACK to a final response other than 2xx (RFC 3261 section 17.1.1.3; CHECKLIST X11)."""
    return _same_hop(invite, "ACK", response.first("to"), ())


def cancel(invite: Request, rows: Iterable[Row] = ()) -> Request:
    """The CANCEL with these further rows (RFC 3261 section 9.1; CHECKLIST X13)."""
    return _same_hop(invite, "CANCEL", None, rows)


def top_branch(request: Request) -> str:
    """The branch of a top Via that we wrote ourselves, in lower case; the values below it are not parsed."""
    value = next((each.value for each in request.rows if each.name == "via"), "")
    branch = value.partition(",")[0].partition(";branch=")[2].partition(";")[0].strip()
    return (branch or request.branch).lower()


def _same_hop(invite: Request, method: str, to: str | None, rows: Iterable[Row]) -> Request:
    """Request-URI, Route, From, Call-ID and CSeq number of the INVITE, and of its Via values the top one, ours."""
    kept: list[Row] = []
    with_via = False
    for each in invite.rows:
        name, original, value = each.name, each.original, each.value
        if name == "via":
            if not with_via:
                with_via = True
                kept.append(Row(name, original, split_list(value)[0]))
        elif name in ("route", "from", "call-id"):
            kept.append(each)
        elif name == "to":
            kept.append(each if to is None else Row(name, original, to))
        elif name == "cseq":
            kept.append(Row(name, original, f"{invite.cseq.number} {method}"))
    return Request(method, invite.uri, (*kept, row("Max-Forwards", "70"), *rows))
