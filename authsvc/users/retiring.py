"""Whether an enrolment is over because the password in the directory has changed (CHECKLIST A24). PURE.

Nobody can compute an HA1 from the hash that a directory holds, so nobody can see whether an HA1 still fits. What can be
seen is when the password changed: `pwdChangedTime` or `pwdLastSet`, or, where the directory keeps none of them, when
anything of the entry did.
"""

from authsvc.users.accounts import Account

PASSWORD_CHANGED = "the password has changed"  # noqa: S105  # a reason
ENTRY_CHANGED = "the entry has changed"
LEFT = "the user has left the directory"


def over_for(password_changed: str, modified: str, account: Account) -> str:
    """Why an enrolment is over that was made when the directory said these two; "" while it is not.

    Values are GeneralizedTime in UTC (RFC 4517 section 3.3.13), or all of them numbers of as many digits. Older ones
    are those of a replica that is behind. One that was there and is not any more says nothing: an overlay was turned
    off, not everybody's password changed.
    """
    if account.password_changed:
        if not password_changed or _time(account.password_changed) > _time(password_changed):
            return PASSWORD_CHANGED
        return ""
    if password_changed:
        return ""
    if modified and account.modified and _time(account.modified) > _time(modified):
        return ENTRY_CHANGED
    return ""


def _time(value: str) -> str:
    """Digits that compare as times do, whether a value has fractions of a second or not."""
    return value.rstrip("Zz").replace(",", ".").rstrip("0").rstrip(".") if "." in value else value.rstrip("Zz")
