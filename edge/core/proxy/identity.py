"""Identities that phones claim, and the one that we assert (RFC 3325; CHECKLIST A12, A29, S07). PURE."""

from collections.abc import Iterable, Sequence

from sipcore import proxy
from sipcore.message import Message, Request, Row

IDENTITIES = frozenset({"p-asserted-identity", "p-preferred-identity", "remote-party-id"})
"""What phones may claim to nobody (RFC 3325 section 5); the last is what came before RFC 3325."""


def claims_identity(message: Message) -> bool:
    """Whether somebody says in it who he is, beside From."""
    return any(message.first(name) is not None for name in IDENTITIES)


def rows_that_go_on(request: Request, user: str, realms: Iterable[str]) -> Sequence[Row]:
    """The rows without credentials of ours or an identity that a phone claims, and who it really is."""
    first = request.first
    rows: Sequence[Row] = request.rows
    if first("proxy-authorization") is not None:
        rows = proxy.without_credentials(rows, realms)
    if claims_identity(request):
        rows = [row for row in rows if row.name not in IDENTITIES]
    if user and not (first("privacy") is not None and _hides_identity(request)):
        rows = [*rows, Row("p-asserted-identity", "P-Asserted-Identity", f"<sip:{user}>")]
    return rows


def _hides_identity(request: Request) -> bool:
    """Privacy-hdr = "Privacy" HCOLON priv-value *(";" priv-value) (RFC 3323 section 4.2); a comma is forgiven."""
    values = ";".join(request.values("privacy")).lower().replace(",", ";")
    return "id" in [value.strip() for value in values.split(";")]
