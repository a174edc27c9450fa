"""Settings of authsvc: sections `authsvc`, `ldap` and `enrolment`."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from authsvc.users.accounts import DISABLED_BY
from runtime.config import Count, Duration, Seconds, Secret, WholeSeconds
from runtime.errors import ConfigError


class AuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `authsvc`."""

    users_file: str = ""
    """A file of `user:realm:MD5-HA1[:SHA-256-HA1:SHA-512-256-HA1]` lines, asked first; empty: none."""
    subscriber: bool = True
    """Whether the tables `subscriber` and `dbaliases` are asked."""
    lockout_failures: Count = 10
    """Failed attempts of one user from one address, each within `lockout_seconds` of the one before, until 403."""
    lockout_seconds: WholeSeconds = 60
    """How long a lock-out lasts."""
    cached_users: Count = 200_000
    """The most users remembered; about 400 bytes each."""
    cache_seconds: Seconds = 300.0
    """How long a looked-up user is used before being asked for again."""
    unknown_seconds: Seconds = 15.0
    """How long a name that no source knows is remembered as unknown."""
    stale_seconds: Seconds = 28_800.0
    """How long after that a remembered user is still used while a source is away."""
    lost_flows: Literal["remove", "keep"] = "remove"
    """Whether the binding of a closed connection ends at once (`remove`), or by its own time (`keep`)."""
    sweep_seconds: Duration = 120.0
    """How often it is looked whether those who are registered are still users; after two looks in a row that miss
    somebody his bindings end. 0: never."""
    sweep_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10
    """If more of them than this are missed at once, it is believed of nobody."""
    parked: Count = 5000
    """The most commands that may wait for a source; further ones are refused with 503 at once."""


class LdapSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `ldap`."""

    url: str = ""
    """`ldaps://host[:port]` or `ldap://host[:port]`; empty: no LDAP."""
    base: str = ""
    """Users are searched in the subtree below this DN."""
    bind_dn: str = ""
    """Who searches; empty: anonymous."""
    bind_password: Secret = Secret()
    """That entry's."""
    domains: tuple[str, ...] = ()
    """The domains whose users are in this directory; empty: all that are served."""
    uid_attribute: str = "uid"
    """The attribute with the digest user's name."""
    password_attribute: str = "userPassword"  # noqa: S105  # the name of an attribute
    """Clear text; a value with a `{SCHEME}` is a hash, from which no HA1 can be made. Empty: never asked for."""
    ha1_attributes: dict[Literal["MD5", "SHA-256", "SHA-512-256"], str] = {}
    """By algorithm, the attribute that holds the HA1: `{"MD5": "sipHA1"}`."""
    number_attribute: str = "telephoneNumber"
    """The attribute whose values are further names of the user, by which he is called too; empty: none. Needs an
    equality index in the directory."""
    filter: str = ""
    """Who counts as a user, beside having the name: `(memberOf=cn=phones,ou=groups,dc=example,dc=test)` (RFC 4515);
    empty: every entry with the name."""
    disabled_by: tuple[str, ...] = tuple(DISABLED_BY)
    """Attributes by which an account counts as disabled: `pwdAccountLockedTime` (locked by an administrator),
    `nsAccountLock`, `loginDisabled`, `userAccountControl`, `accountExpires`, `shadowExpire`. Empty: none is."""
    starttls: bool = False
    """TLS on an `ldap://` connection before the bind."""
    ca_file: str = ""
    """Certificates of the authorities that may vouch for the server; empty: the machine's."""
    insecure: bool = False
    """Allows `ldap://` without TLS: passwords and HA1s cross the network readable."""
    timeout: Seconds = 1.5
    """Seconds that one search may take before the directory counts as away."""

    def has(self, domain: str) -> bool:
        """Whether the users of a served domain, by its name in lower case, are in this directory."""
        return not self.domains or domain in {each.lower() for each in self.domains}

    def check(self) -> None:
        """Raises ConfigError where passwords would travel unprotected or a bind would prove nothing."""
        if not self.url:
            return
        if unknown := [name for name in self.disabled_by if name not in DISABLED_BY]:
            raise ConfigError(f"RAMAL_LDAP_DISABLED_BY: {unknown[0]!r} is none of {', '.join(DISABLED_BY)}")
        try:
            address = urlsplit(self.url)
        except ValueError as error:
            raise ConfigError(f"RAMAL_LDAP_URL: {error}") from error
        if "@" in address.netloc:
            raise ConfigError("RAMAL_LDAP_URL: has a user in it; say who searches by RAMAL_LDAP_BIND_DN")
        scheme = address.scheme
        if scheme not in ("ldap", "ldaps"):
            raise ConfigError("RAMAL_LDAP_URL: must begin with ldaps:// or ldap://")
        if scheme == "ldap" and not self.starttls and not self.insecure:
            raise ConfigError(
                "RAMAL_LDAP_URL: passwords would cross the network readable; use ldaps://, RAMAL_LDAP_STARTTLS=true"
                " or, for development only, RAMAL_LDAP_INSECURE=true"
            )
        if self.bind_dn and not self.bind_password:
            # A bind with a name and no password succeeds and proves nothing (RFC 4513 section 5.1.2).
            raise ConfigError("RAMAL_LDAP_BIND_PASSWORD: is not set, but RAMAL_LDAP_BIND_DN is")


class EnrolmentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `enrolment`: authsvc and the console read it, and so does `ramal enroll`."""

    keys: Secret = Secret()
    """Keys that seal what enrolment stores: `ID:HEX[,ID:HEX…]`, 32 bytes each; the first seals, all open; empty: no
    enrolment. A file is read again when it changes (`ramal keys rotate`)."""
    phone_passwords: Literal["directory", "generated"] = "directory"
    """What phones log in with: the directory's own password (or, for who asks for it, one of our making), or always one
    of our making."""
    retire: Literal["password-changed", "never"] = "password-changed"
    """Whether a new password in the directory ends what the old one enrolled."""
    check_seconds: Duration = 120.0
    """How often the directory is asked whose password has changed; 0: never."""
    failures: Count = 5
    """Wrong passwords of one user until the next attempt must wait: fewer than lock an account in the directory."""
    locked_seconds: WholeSeconds = 60
    """That wait; twice as long after each further one, an hour at the most."""
