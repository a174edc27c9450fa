"""What a directory says of a user's account beside the password: whether it is disabled, and when it changed. PURE.

Each directory says "disabled" by an attribute of its own. They are read, not put into a filter: where an attribute is
not in a server's schema, a filter with its negation is Undefined (RFC 4511 section 4.5.1.7) and finds nobody.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

PASSWORD_CHANGED, MODIFIED = ("pwdChangedTime", "pwdLastSet"), "modifyTimestamp"
"""Attributes of OpenLDAP's overlay ppolicy, of Active Directory, and of every directory (RFC 4512 section 3.4.2)."""
DAY = 86_400
_TICKS, _UNIX_IN_FILETIME = 10_000_000, 11_644_473_600
_NEVER = 0x7FFF_FFFF_FFFF_FFFF
_ACCOUNTDISABLE = 2


class Account(msgspec.Struct, frozen=True):
    """What the directory says of one user."""

    disabled: str = ""
    """The attribute that says so; "" for an account in use."""
    password_changed: str = ""
    """Value of `pwdChangedTime` (GeneralizedTime) or `pwdLastSet` (FILETIME); "" where the directory keeps none."""
    modified: str = ""
    """Value of `modifyTimestamp`."""


def account_of(attributes: Mapping[str, Sequence[bytes]], disabled_by: Collection[str], now: float) -> Account:
    """The account of an entry (attribute names in lower case), `now` in Unix seconds."""
    return Account(
        disabled_by_any(attributes, disabled_by, now),
        next((value for name in PASSWORD_CHANGED if (value := _first(attributes, name))), ""),
        _first(attributes, MODIFIED),
    )


def disabled_by_any(attributes: Mapping[str, Sequence[bytes]], disabled_by: Collection[str], now: float) -> str:
    """The first of these attributes by which an entry is of a disabled account; "" when none is."""
    for name in disabled_by:
        value = _first(attributes, name)
        if value and DISABLED_BY[name](value, now):
            return name
    return ""


def _first(attributes: Mapping[str, Sequence[bytes]], name: str) -> str:
    for value in attributes.get(name.lower(), ()):
        return value.decode("utf-8", "replace").strip()
    return ""


def _locked_by_an_administrator(value: str, now: float) -> bool:
    """Not after wrong passwords, until a time: who guesses them at a web page must not end somebody's calls.

    draft-behera-ldap-password-policy section 5.3.3.
    """
    del now
    return value == "000001010000Z"


def _true(value: str, now: float) -> bool:
    del now
    return value.upper() == "TRUE"


def _account_control(value: str, now: float) -> bool:
    del now
    return bool((_number(value) or 0) & _ACCOUNTDISABLE)


def _day_is_over(value: str, now: float) -> bool:
    day = _number(value)
    return day is not None and 0 < day <= now // DAY


def _filetime_is_over(value: str, now: float) -> bool:
    ticks = _number(value)
    return ticks is not None and 0 < ticks < _NEVER and ticks / _TICKS - _UNIX_IN_FILETIME <= now


def _number(value: str) -> int | None:
    try:
        return int(value)
    except ValueError:
        return None


DISABLED_BY: Mapping[str, Callable[[str, float], bool]] = {
    "pwdAccountLockedTime": _locked_by_an_administrator,  # OpenLDAP's ppolicy
    "nsAccountLock": _true,  # 389 Directory Server, FreeIPA
    "loginDisabled": _true,  # eDirectory
    "userAccountControl": _account_control,  # Active Directory
    "accountExpires": _filetime_is_over,  # the same
    "shadowExpire": _day_is_over,  # RFC 2307
}
"""By attribute, whether its value says that the account may not be used `now`."""
