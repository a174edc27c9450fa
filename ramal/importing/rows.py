"""What a row of Kamailio's or OpenSIPS' tables means here; or why Ramal cannot take it. PURE.

A row is a dictionary by the columns' names; which columns there are depends on the program and its version.
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from authsvc.users.ha1 import User, from_ha1s, from_password
from events.calls import (
    CallAnswered,
    CallAttempted,
    CallCancelled,
    CallEnded,
    CallEvent,
    CallFailed,
    CallRedirected,
    EndedBy,
)
from events.commands import Contact, Registration
from events.limits import CALL_ID, DOMAIN, PHRASE, TAG, URI, USERNAME
from ramal.wording import new_name
from sipcore.errors import ParseError
from sipcore.uri import Uri, parse_uri

Row = Mapping[str, Any]
Key = tuple[str, str]
"""Name and domain."""

UNTIMED = "it has no time that can be read"
UNNAMEABLE = "its name cannot stand in a SIP address: `ramal user add` refuses it too"

FOREVER_AGO = -10 * 365 * 86_400
_LAST = 253_402_300_799_000
"""The end of the year 9999, in milliseconds: later no time can be written."""
_LONGEST = 31 * 86_400
"""Seconds that a call may have rung or lasted: our `acc`, as theirs, has 32 bits for its milliseconds."""
_HIGHEST = 2**31 - 1
"""Of a CSeq number (RFC 3261 section 8.1.1.5) and a reg-id (RFC 5626 section 4.2)."""
_FARTHEST = 2**32 - 1
"""Seconds that an Expires can say (RFC 3261 section 20.19)."""
_UNQUOTABLE = re.compile(r'["\\\x00-\x1f\x7f]')
"""What would need an escape in a quoted string, or can stand in none (RFC 3261 section 25.1)."""
_CONNECTED = frozenset({"ws", "wss"})


class Left(NamedTuple):
    """A row that is not taken over."""

    why: str
    """The same words for all of one kind: they are counted."""
    what: str
    """Which, for people."""


class Account(NamedTuple):
    """A user."""

    key: Key
    user: User
    doubt: str = ""
    """What an operator should know of it; the same words for all of one kind."""


class Alias(NamedTuple):
    """Another name of a user."""

    key: Key
    user: Key


class Group(NamedTuple):
    """A user's membership in a group."""

    key: Key
    group: str


class Phone(NamedTuple):
    """A contact that is registered."""

    aor: str
    registration: Registration
    left: int
    """Seconds until it ends."""


def account(row: Row, domain: str, served: Collection[str]) -> Account | Left:
    """A row of `subscriber`. A clear-text password gives all three HA1s; it is not kept itself."""
    key = _key(row, "username", "domain", domain)
    if left := _unfit(key, served):
        return left
    stored = from_ha1s(
        {"MD5": _text(row, "ha1"), "SHA-256": _text(row, "ha1_sha256"), "SHA-512-256": _text(row, "ha1_sha512t256")}
    )
    password = _text(row, "password")
    if not password:
        return Account(key, stored) if stored != User() else Left("it has neither a password nor an HA1", _said(key))
    user = from_password(*key, password)
    differs = stored.md5 is not None and stored.md5 != user.md5
    return Account(key, user, "its ha1 is not of its password and domain; the password was taken" if differs else "")


def alias(row: Row, domain: str, served: Collection[str]) -> Alias | Left:
    """A row of `dbaliases`."""
    key, user = _key(row, "alias_username", "alias_domain", domain), _key(row, "username", "domain", domain)
    if left := _unfit(key, served) or _unfit(user, served):
        return left
    return Left("it is the user's own name", _said(key)) if key == user else Alias(key, user)


def group(row: Row, domain: str, served: Collection[str]) -> Group | Left:
    """A row of `grp`."""
    key, name = _key(row, "username", "domain", domain), _text(row, "grp")
    if left := _unfit(key, served):
        return left
    return Group(key, name) if 0 < len(name) <= USERNAME else Left("it names no group", _said(key))


# --- location --------------------------------------------------------------------------------------------------------


def phone(row: Row, domain: str, served: Collection[str], least: int) -> Phone | Left:
    """A row of `location`, with `left`, the seconds until it ends; `least`, the least seconds that are granted.

    Taken is what any edge can send to: a Contact that is the phone's own address. What only the other proxy can reach
    (a WebSocket, an address behind NAT, a Path) comes back with the phone's next REGISTER.
    """
    key = _key(row, "username", "domain", domain)
    if left := _unfit(key, served):
        return left
    contact, seconds, q, cseq = _text(row, "contact"), _number(row, "left"), _number(row, "q"), _number(row, "cseq")
    said = f"{_said(key)} at {contact}"
    if seconds is None:
        return Left(UNTIMED, said)
    if seconds <= 0:
        forever = seconds < FOREVER_AGO
        return Left("it was set for ever, by no phone" if forever else "its time is over", said)
    try:
        uri = parse_uri(contact)
    except ParseError:
        uri = None
    if uri is None or uri.scheme not in ("sip", "sips"):
        return Left("its Contact is no SIP URI", said)
    if why := _only_there(uri, row):
        return Left(why, said)
    if q is None:
        return Left("its q cannot be read", said)
    if cseq is None or cseq > _HIGHEST:
        return Left("its cseq cannot be read", said)
    instance = (_text(row, "instance") or _text(row, "sip_instance")).strip('"')
    if _UNQUOTABLE.search(instance):
        return Left("its instance cannot stand in a Contact", said)
    # Kamailio says -1 for none.
    reg_id = int(_number(row, "reg_id") or 0)
    remaining = int(min(seconds, _FARTHEST))
    registered = Contact(
        uri=contact,
        params=(f";q={q:g}" if 0 <= q < 1 else "") + (f';+sip.instance="{instance}"' if instance else ""),
        q=q if 0 <= q < 1 else None,
        expires=max(remaining, least),
        instance=instance or None,
        reg_id=reg_id if instance and 0 < reg_id <= _HIGHEST else None,
        path=(),
    )
    call_id = _text(row, "callid")[:CALL_ID]
    registration = Registration(
        call_id=call_id,
        cseq=max(0, int(cseq)),
        branch="imported",
        contacts=(registered,),
        user_agent="" if (agent := _text(row, "user_agent")) == "n/a" else agent,
    )
    return Phone("@".join(key), registration, remaining)


def _only_there(uri: Uri, row: Row) -> str:
    if (uri.param("transport") or "").lower() in _CONNECTED or uri.host.endswith(".invalid"):
        return "it is on a WebSocket, which only the other proxy has"
    if _text(row, "path"):
        return "it is reached through another proxy (Path)"
    if received := _text(row, "received"):
        try:
            seen = parse_uri(received)
        except ParseError:
            return "it is behind NAT, whose mapping only the other proxy has"
        if (seen.host, seen.port or 5060) != (uri.host, uri.port or 5060):
            return "it is behind NAT, whose mapping only the other proxy has"
    return ""


# --- acc -------------------------------------------------------------------------------------------------------------


def calls(row: Row, callers: Collection[tuple[str, str]], served: Collection[str], edge: str) -> list[CallEvent] | Left:
    """The events of a row of `acc`, with `at`, milliseconds since 1970.

    `callers`: From tag and To tag of the answered INVITEs of its Call-ID, by which the side of a BYE is known. `edge`
    stands in the events as who saw it.
    """
    method, code, call_id = _text(row, "method"), _text(row, "sip_code"), _text(row, "callid")
    said = f"{method} {code} of {call_id}"
    if not call_id or len(call_id) > CALL_ID:
        return Left("it has no Call-ID, or too long a one", said)
    if not re.fullmatch(r"[2-6]\d\d", code):
        return Left("it has no final response", said)
    at = _number(row, "at")
    if at is None or not 0 <= at <= _LAST:
        return Left(UNTIMED, said)
    own, other = _text(row, "from_tag")[:TAG], _text(row, "to_tag")[:TAG]
    if method == "BYE":
        by_callee = (other, own) in callers
        tags = (other, own) if by_callee else (own, other)
        by: EndedBy = "callee" if by_callee else "caller" if tags in callers else ""
        return [CallEnded(call_id=call_id, from_tag=tags[0], cseq=0, at=int(at), edge=edge, to_tag=tags[1], by=by)]
    if method != "INVITE":
        return Left("it is of no call's beginning or end (another method)", said)
    setup, lasted = 1000 * (_number(row, "setuptime") or 0), _lasted(row)
    if not (0 <= setup <= min(at, 1000 * _LONGEST) and 0 <= lasted <= min(_LAST - at, 1000 * _LONGEST)):
        return Left("its setuptime or duration is no time of a call", said)
    return _invite(row, int(code), (int(at), int(setup), int(lasted)), own, other, served, edge)


def _lasted(row: Row) -> float:
    """Milliseconds; OpenSIPS accounts a whole call in one row."""
    return (_number(row, "ms_duration") or 0) or 1000 * (_number(row, "duration") or 0)


def _invite(
    row: Row, code: int, times: tuple[int, int, int], own: str, other: str, served: Collection[str], edge: str
) -> list[CallEvent]:
    """`times`: when it was answered, how long it rang and lasted, in milliseconds."""
    (at, setup, lasted), call_id = times, _text(row, "callid")
    caller, callee = (_party(row, side) for side in ("src", "dst"))
    dialled = _text(row, "dst_ouser") or _text(row, "dst_user")
    ours = {party for party in (caller, callee) if party.rpartition("@")[2] in served}
    begin = CallAttempted(
        call_id=call_id, from_tag=own, cseq=0, at=at - setup, edge=edge,
        from_uri=f"sip:{caller}" if caller else "", to_uri=f"sip:{callee}" if callee else "",
        dialled=_dialled(dialled, callee), source=_text(row, "src_ip"),
        caller=caller if caller in ours else "", callee=callee if callee in ours else "",
    )  # fmt: skip
    what: dict[str, Any] = {"call_id": call_id, "from_tag": own, "cseq": 0, "at": at, "edge": edge, "to_tag": other}
    if code < 300:
        events: list[CallEvent] = [begin, CallAnswered(code=code, **what)]
        if lasted:
            events.append(CallEnded(**{**what, "at": at + lasted}, by=""))  # it does not say who hung up
        return events
    if code == 487:
        return [begin, CallCancelled(**what)]
    if code < 400:
        return [begin, CallRedirected(code=code, **what)]
    return [begin, CallFailed(code=code, phrase=_text(row, "sip_reason")[:PHRASE], **what)]


def _party(row: Row, side: str) -> str:
    user, domain = _text(row, f"{side}_user"), _text(row, f"{side}_domain").lower()
    return f"{user}@{domain}"[:URI] if user and domain else ""


def _dialled(user: str, callee: str) -> str:
    if not user:
        return ""
    return f"sip:{user}@{callee.rpartition('@')[2]}" if callee else f"sip:{user}"


# --- what all have ---------------------------------------------------------------------------------------------------


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _number(row: Row, column: str) -> float | None:
    """None for a column that is not there, is NULL or is no number."""
    try:
        value = float(row[column])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _key(row: Row, name: str, domain: str, default: str) -> Key:
    return _text(row, name), (_text(row, domain) or default).lower()


def _said(key: Key) -> str:
    return "@".join(key)


def _unfit(key: Key, served: Collection[str]) -> Left | None:
    name, domain = key
    try:
        new_name(name)
    except ValueError:
        return Left(UNNAMEABLE, repr(_said(key)))
    if len(name) > USERNAME or len(domain) > DOMAIN:
        return Left(f"its name is longer than {USERNAME} characters", _said(key))
    return None if domain in served else Left(f"the domain {domain} is not served", _said(key))
