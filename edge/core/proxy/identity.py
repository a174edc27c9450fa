"""Who a caller is, as phones claim it, as trusted peers say it and as we assert it (RFC 3325; A12, A29, S07). PURE.

The Trust Domain (section 3) are we, the listed peers, and the gateways that calls go by. What one of them asserts is
believed; nobody else hears who wishes to stay unknown.
"""

from collections.abc import Sequence

from edge.core.settings import CoreSettings
from sipcore import proxy
from sipcore.message import Message, Request, Row

ASSERTED = frozenset({"p-asserted-identity", "remote-party-id"})
"""What the Trust Domain says among itself; the second is what came before RFC 3325."""
IDENTITIES = ASSERTED | {"p-preferred-identity"}
"""What phones may claim to nobody (section 5)."""


def claims_identity(message: Message) -> bool:
    """Whether somebody says in it who he is, beside From."""
    return any(message.first(name) is not None for name in IDENTITIES)


def rows_that_go_on(request: Request, user: str, settings: CoreSettings, source: str = "") -> Sequence[Row]:
    """The rows without credentials of ours or an identity that a phone claims, and who it really is.

    `source`: the address that it came from; that of a listed peer says who the caller is.
    """
    rows: Sequence[Row] = request.rows
    if request.first("proxy-authorization") is not None:
        rows = proxy.without_credentials(rows, settings.algorithms)
    if claims_identity(request):
        claims = IDENTITIES - ASSERTED if settings.is_peer(source) else IDENTITIES
        rows = [row for row in rows if row.name not in claims]
    if user:
        rows = [*rows, Row("p-asserted-identity", "P-Asserted-Identity", f"<sip:{user}>")]
    return rows


def for_strangers(message: Message, rows: Sequence[Row]) -> Sequence[Row]:
    """These rows of a message as they leave the Trust Domain: who wishes to stay unknown does (section 7)."""
    if message.first("privacy") is None or not _hides_identity(message):
        return rows
    return [row for row in rows if row.name not in IDENTITIES]


def _hides_identity(message: Message) -> bool:
    """Privacy-hdr = "Privacy" HCOLON priv-value *(";" priv-value) (RFC 3323 section 4.2); a comma is forgiven."""
    values = ";".join(message.values("privacy")).lower().replace(",", ";")
    return "id" in [value.strip() for value in values.split(";")]
