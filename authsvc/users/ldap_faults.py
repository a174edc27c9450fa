"""Why a directory does not answer, in a sentence for whoever runs it: which setting is wrong, or what is away."""

import ssl
from typing import NamedTuple

from authsvc.config import LdapSettings
from authsvc.users.ldap_wire import Ended
from runtime.tls import tls_fault

from ldap3.core.exceptions import LDAPOperationResult  # isort: skip  # after those who keep its deprecations quiet
from ldap3.core.results import RESULT_CODES  # isort: skip

NO_SUCH_OBJECT, INVALID_DN = 32, 34
REFERRAL, LIMITS = 10, frozenset({3, 4, 11})
REFUSALS = frozenset({8, 13, 48, 49})
"""strongerAuthRequired, confidentialityRequired, inappropriateAuthentication, invalidCredentials."""
NOT_ALLOWED = frozenset({1, 50})
"""operationsError is Active Directory's word to who has not bound; insufficientAccessRights."""


class _Files(NamedTuple):
    """What `runtime.tls` asks of settings (see `runtime.config.Files`)."""

    ca_file: str
    certificate: str = ""
    private_key: str = ""


def fault(error: BaseException, settings: LdapSettings) -> str:
    """In a sentence without the directory's own words, which could be anything; never with a password."""
    where = ("the directory", settings.url)
    at = " at ".join(where)
    if isinstance(error, TimeoutError):
        return f"{at} did not answer in time"
    # Not `error` itself: ldap3 makes its own error a kind of the one that it wraps, without what stands in that.
    if (cause := error.__cause__) and (told := tls_fault(cause, "LDAP", _Files(settings.ca_file), *where)):
        return told
    if isinstance(error, Ended):
        return _search_refused(error.code, at, settings)
    if isinstance(error, LDAPOperationResult):
        refused = _search_refused if error.type == "searchResDone" else _bind_refused
        return refused(int(error.result), at, settings)
    if isinstance(cause, ssl.SSLEOFError):
        return f"{at} ends the connection where TLS begins: it does not speak TLS there, or is just starting"
    return f"{at} cannot be reached: {_plain(error)}"


def _bind_refused(code: int, at: str, settings: LdapSettings) -> str:
    name = f"{code} {RESULT_CODES.get(code, '')}".strip()
    if code == INVALID_DN:
        return f"RAMAL_LDAP_BIND_DN: {settings.bind_dn!r} is not a DN, says the directory ({name})"
    if code in REFUSALS and settings.bind_dn:
        return f"{at} refuses RAMAL_LDAP_BIND_DN or RAMAL_LDAP_BIND_PASSWORD ({name})"
    if code in REFUSALS:
        return f"{at} lets nobody search without RAMAL_LDAP_BIND_DN ({name})"
    return f"{at} refuses a bind or StartTLS ({name})"


def _search_refused(code: int, at: str, settings: LdapSettings) -> str:
    name = f"{code} {RESULT_CODES.get(code, '')}".strip()
    if code == NO_SUCH_OBJECT:
        # OpenLDAP says so, too, of what this account may not know of.
        may = "that RAMAL_LDAP_BIND_DN may see" if settings.bind_dn else "to be seen without RAMAL_LDAP_BIND_DN"
        return f"RAMAL_LDAP_BASE: {settings.base!r} is nothing in {at} {may} ({name})"
    if code == INVALID_DN:
        return f"RAMAL_LDAP_BASE: {settings.base!r} is not a DN, says the directory ({name})"
    if code == REFERRAL:
        return f"RAMAL_LDAP_BASE: {settings.base!r} is on another server than {at} ({name})"
    if code in LIMITS:
        return f"{at} ended a search by a limit of its own ({name}); it may lack an index on what is searched by"
    if code in NOT_ALLOWED | REFUSALS:
        who = "RAMAL_LDAP_BIND_DN" if settings.bind_dn else "anybody (RAMAL_LDAP_BIND_DN is not set)"
        return f"{at} does not let {who} search below RAMAL_LDAP_BASE ({name})"
    return f"{at} ended a search with the result {name}"


def _plain(error: BaseException) -> str:
    """ldap3 wraps what happened in prose and tuples."""
    said = str(error.args[0] if error.args and not isinstance(error, OSError) else error)
    if said == "invalid server address":
        return "its name does not resolve"
    return said.removeprefix("socket connection error while opening: ") or type(error).__name__
