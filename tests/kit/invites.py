"""An INVITE as authsvc is asked about it."""

from authsvc.decider import Rules
from events.commands import (
    Authenticate,
    Digest,
    ReplyTo,
    RequestId,
)
from runtime.config import Domain
from sipcore import digest, nonce

REALM = "example.test"
KEYS = {"k1": b"0123456789abcdef"}
NOW = 1_800_000_000
AT = NOW * 1000
ALICE = f"alice@{REALM}"
DOMAINS = {REALM: Domain(country="55", area="48"), "thesis.test": Domain(thesis_mode=True)}
RULES = Rules(DOMAINS, KEYS, 300)


def invite(
    user: str = "alice",
    *,
    realm: str = REALM,
    password: str = "",
    aor: str | None = None,
    method: str = "INVITE",
    nc: int = 1,
    edge: str = "edge-1",
    boot: str = "boot-1",
    request: RequestId | None = RequestId("call-1", 1, "z9hG4bK1"),  # noqa: B008  # it is frozen
    uri: str = "sip:bob@example.test",
) -> Authenticate:
    value = nonce.make(KEYS, realm, NOW, b"salt", "192.0.2.4")
    ha1 = digest.ha1("MD5", user, realm, password or f"secret-{user}")
    response = digest.expected_response("MD5", ha1, method, uri, value, "auth", nc, "c")
    return Authenticate(
        f"{user}-{edge}-{nc}",
        ReplyTo(edge, boot, AT + 2000),
        Digest(user, realm, value, uri, response, "MD5", "auth", nc, "c"),
        method,
        "192.0.2.4",
        f"{user}@{realm}" if aor is None else aor,
        request=request,
    )
