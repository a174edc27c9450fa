"""Digest access authentication, the server's part (RFC 3261 section 22, RFC 7616, RFC 8760).

`qop="auth"` only; the -sess variants are neither offered nor accepted. Basic does not exist here.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from sipcore.grammar import LWS, QUOTED_STRING, unquote

ALGORITHMS: Final = ("MD5", "SHA-256", "SHA-512-256")
_SPELLED: Final = {algorithm.lower(): algorithm for algorithm in ALGORITHMS}
_RESPONSE: Final = {"MD5": re.compile(r"[0-9a-f]{32}"), "SHA-256": re.compile(r"[0-9a-f]{64}")}
_RESPONSE["SHA-512-256"] = _RESPONSE["SHA-256"]
# nc-value = 8LHEX: lower case, and the text is hashed.
_NC = re.compile(r"[0-9a-f]{8}")

# credentials = ("Digest" LWS digest-response); auth-param = auth-param-name EQUAL ( token / quoted-string ).
# An unquoted value may be any text that ends nothing: some phones do not quote what must be quoted.
_NAME = r"[A-Za-z0-9\-.!%*_+`'~]++"
_PARAM_PATTERN = rf'{LWS}({_NAME}){LWS}={LWS}({QUOTED_STRING}|[^\x00-\x20\x7f,"]++){LWS}'
_PARAM = re.compile(_PARAM_PATTERN + r"(?:,|\Z)", re.DOTALL)
_PARAMS = re.compile(
    rf"[Dd][Ii][Gg][Ee][Ss][Tt][ \t]++((?>(?:{LWS},?+{LWS}{_NAME}{LWS}={LWS}"
    rf'(?:{QUOTED_STRING}|[^\x00-\x20\x7f,"]++){LWS}(?:,|\Z))+))',
    re.DOTALL,
)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _sha512_256(text: str) -> str:
    return hashlib.new("sha512_256", text.encode("utf-8", "surrogateescape")).hexdigest()


REMEMBERED: Final = 500
"""Values of which it is known what they say: a call's are read when it comes, and when it goes on without them."""
PARAMETERS: Final = 30
"""Commas in credentials, those in quotes included; RFC 7616 defines a dozen parameters."""

_HASH: Final[dict[str, Callable[[str], str]]] = {"MD5": _md5, "SHA-256": _sha256, "SHA-512-256": _sha512_256}


class Credentials:
    """What a client answered to a challenge; never shown by repr()."""

    __slots__ = ("algorithm", "cnonce", "nc", "nonce", "opaque", "qop", "realm", "response", "uri", "username")

    def __init__(
        self,
        username: str,
        realm: str,
        nonce: str,
        uri: str,
        response: str,
        algorithm: str = "MD5",
        qop: str | None = None,
        nc: int | None = None,
        cnonce: str | None = None,
        opaque: str | None = None,
    ) -> None:
        self.username = username
        self.realm = realm
        self.nonce = nonce
        self.uri = uri
        self.response = response
        """Lower-case hex, of the algorithm's length."""
        self.algorithm = algorithm
        """One of ALGORITHMS."""
        self.qop = qop
        """"auth", or None (RFC 2069)."""
        self.nc = nc
        self.cnonce = cnonce
        self.opaque = opaque

    def __repr__(self) -> str:
        return "<Credentials>"


def ha1(algorithm: str, username: str, realm: str, password: str) -> str:
    """H(A1) in lower-case hex (RFC 7616 section 3.4.2)."""
    return _HASH[algorithm](f"{username}:{realm}:{password}")


def expected_response(
    algorithm: str,
    ha1: str,
    method: str,
    uri: str,
    nonce: str,
    qop: str | None = None,
    nc: int | None = None,
    cnonce: str | None = None,
) -> str:
    """The right `response` (RFC 7616 section 3.4.1); without qop that of RFC 2069."""
    digest = _HASH[algorithm]
    ha2 = digest(f"{method}:{uri}")
    if qop is None:
        return digest(f"{ha1}:{nonce}:{ha2}")
    return digest(f"{ha1}:{nonce}:{nc or 0:08x}:{cnonce or ''}:{qop}:{ha2}")


def same(a: str, b: str) -> bool:
    """Whether two digests are the same, in constant time."""
    return hmac.compare_digest(a.encode("utf-8", "surrogateescape"), b.encode("utf-8", "surrogateescape"))


@lru_cache(maxsize=REMEMBERED)
def parse_credentials(value: str) -> Credentials | None:
    """The credentials of one Authorization or Proxy-Authorization value.

    None for what nobody can check: another scheme, an unknown algorithm or qop, a missing, repeated or
    malformed parameter, a response of the wrong length (RFC 8760 section 2.2). No `algorithm` means MD5.
    """
    match = _PARAMS.fullmatch(value) if value.count(",") <= PARAMETERS else None
    if match is None:
        return None
    found = _PARAM.findall(match[1])
    params = {name.lower(): text for name, text in found}
    if len(params) != len(found):
        return None
    algorithm = _SPELLED.get(unquote(params.get("algorithm", "MD5")).lower())
    try:
        username, realm = unquote(params["username"]), unquote(params["realm"])
        nonce, uri = unquote(params["nonce"]), unquote(params["uri"])
        response = unquote(params["response"]).lower()
    except KeyError:
        return None
    if algorithm is None or not _RESPONSE[algorithm].fullmatch(response) or not username:
        return None
    if "userhash" in params and unquote(params["userhash"]).lower() == "true":
        return None  # never offered, and a hashed name finds nobody
    opaque = unquote(params["opaque"]) if "opaque" in params else None
    if "qop" not in params:
        return Credentials(username, realm, nonce, uri, response, algorithm, opaque=opaque)
    qop = unquote(params["qop"]).lower()
    nc, cnonce = unquote(params.get("nc", "")), unquote(params.get("cnonce", ""))
    if qop != "auth" or not _NC.fullmatch(nc) or not cnonce:
        return None
    return Credentials(username, realm, nonce, uri, response, algorithm, qop, int(nc, 16), cnonce, opaque)


def select_credentials(values: Iterable[str], realm: str, algorithms: Iterable[str] = ALGORITHMS) -> Credentials | None:
    """The first usable credentials for our realm and one of these algorithms, in any position; None if there are none.

    `values` are the rows of Authorization (or Proxy-Authorization): `request.values("authorization")`.
    """
    accepted = tuple(algorithms)
    for value in values:
        credentials = parse_credentials(value)
        if credentials is not None and credentials.realm == realm and credentials.algorithm in accepted:
            return credentials
    return None


def challenge(realm: str, nonce: str, algorithm: str, *, stale: bool = False) -> str:
    """The value of one WWW-Authenticate or Proxy-Authenticate row."""
    quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
    value = f'Digest realm="{quoted}", nonce="{nonce}", algorithm={algorithm}, qop="auth"'
    return value + ", stale=true" if stale else value
