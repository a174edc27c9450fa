"""What a REGISTER says, as the record that will carry it, and the Contact rows of its 200.

RFC 3261 section 10.3, RFC 3327, RFC 5626 section 4, RFC 5627 section 4.
"""

from collections.abc import Callable
from functools import lru_cache

import msgspec

from edge.core.response import printable
from edge.core.tokens.flow_names import FlowNames
from events.commands import Contact, Registration
from events.limits import USER_AGENT
from events.registrations import Binding
from sipcore.address import Address, parse_address
from sipcore.errors import ParseError
from sipcore.grammar import VALUES, delta_seconds, qvalue, split_list, too_many, uint
from sipcore.message import Header, Request

Way = Callable[[Address], tuple[str, ...] | None]

MAX_REG_ID = 2**31 - 1
"""RFC 5626 section 4.2: 1 to 2**31-1."""

GRUUS = ("pub-gruu", "temp-gruu")
"""Parameters of a Contact that are ours to say, and ignored where a phone says them (RFC 5627 section 5.1)."""

SHORT = 512
"""Octets of an Allow header that is remembered."""

METHODS = {
    "INVITE": 1,
    "CANCEL": 2,
    "ACK": 4,
    "BYE": 8,
    "INFO": 16,
    "REGISTER": 32,
    "SUBSCRIBE": 64,
    "NOTIFY": 128,
    "MESSAGE": 256,
    "OPTIONS": 512,
    "PRACK": 1024,
    "UPDATE": 2048,
    "REFER": 4096,
    "PUBLISH": 8192,
}
"""OpenSIPS' bits of the column `methods`."""


def is_first_hop(request: Request) -> bool:
    """Whether nobody stands between its sender and us, as its Via tells (RFC 5626 section 6)."""
    return len(request.values("via")) == 1


def asks_for_outbound(request: Request) -> bool:
    """Whether the phone does RFC 5626 and registers one of its flows: a Contact with `+sip.instance` and `reg-id`."""
    if not any(tag.lower() == "outbound" for tag in request.values("supported")):
        return False
    expires = expires_of(request)
    return any(
        contact.get("reg-id") is not None and contact.get("+sip.instance") and not is_removed(contact, expires)
        for contact in request.contacts
    )


def path_beyond(request: Request) -> tuple[str, ...]:
    """The Path values of proxies between the phone and us, the nearest first; ParseError (400) for what is none."""
    values = request.counted("path")
    elements = [element for value in values for element in split_list(value) if element]
    for element in elements:
        if not element.isascii() or "<" not in element or not parse_address(element).parsed_uri.is_sip:
            raise ParseError("bad-path", "Bad Path")
    return tuple(elements)


def registration(request: Request, names: FlowNames, way: Way, beyond: tuple[str, ...] = ()) -> Registration:
    """What the request says and how it came; ParseError (400) where a Contact says nonsense.

    What came by another proxy is no flow of the phone's: its `reg-id` is ignored (RFC 5626 section 6).

    `way` gives the Path of a Contact, as `events.commands.Contact` has it; it is not asked of those that are removed.
    `beyond` are the Path values behind ours: a listed proxy's. A phone's own are left out (CHECKLIST N16).
    """
    expires = expires_of(request)
    contacts = tuple([_contact(address, way, expires) for address in request.contacts])
    if any(contact.reg_id is not None for contact in contacts) and not is_first_hop(request):
        contacts = tuple([msgspec.structs.replace(contact, reg_id=None) for contact in contacts])
    if len(contacts) > 1:
        bound = [contact for contact in contacts if not _ends(contact.expires, expires)]
        if len(bound) > 1 and any(contact.reg_id is not None and contact.instance is not None for contact in bound):
            raise ParseError("several-flows", "One Flow In One REGISTER")  # RFC 5626 section 6
    with_instance = any(contact.instance for contact in contacts)
    return Registration(
        call_id=request.call_id,
        cseq=request.cseq.number,
        branch=request.branch,
        contacts=contacts,
        star=request.star,
        expires=expires,
        received=names.received,
        path=(names.path, *beyond),
        socket=names.socket,
        user_agent=_user_agent(request.first("user-agent")),
        methods=_allowed(request),
        gruu=with_instance and asks_for_gruus(request),
    )


def asks_for_gruus(request: Request) -> bool:
    """Whether the 200 names the GRUUs of all phones, also to who asks only what is there (RFC 5627 section 5.2)."""
    return any(tag.lower() == "gruu" for tag in request.values("supported"))


def expires_of(request: Request) -> int | None:
    """Seconds of the Expires header; None without one."""
    text = request.first("expires")
    return None if text is None else delta_seconds(text)


def is_removed(address: Address, default: int | None) -> bool:
    """Whether a Contact ends its binding; `default` are the header's seconds."""
    own = address.get("expires")
    return _ends(None if own is None else delta_seconds(own), default)


def _ends(own: int | None, default: int | None) -> bool:
    """By its own `expires`, else by the header's (RFC 3261 section 10.2.2)."""
    return (default if own is None else own) == 0


def _contact(address: Address, way: Way, default: int | None) -> Contact:
    expires: int | None = None
    q: float | None = None
    instance: str | None = None
    reg_id: int | None = None
    gruus = False
    for name, value in address.params:
        if name == "expires":
            expires = delta_seconds(value or "")
        elif name == "q":
            q = qvalue(value or "")
        elif name == "+sip.instance":
            instance = value or None
        elif name == "reg-id":
            reg_id = uint(value or "", MAX_REG_ID)
            if not reg_id:
                raise ParseError("bad-reg-id", "Bad reg-id")
        elif name in GRUUS:
            gruus = True
    params = address.raw_params if expires is None and not gruus else address.params_without("expires", *GRUUS)
    path = None if _ends(expires, default) else way(address)
    return Contact(address.uri, params, q, expires, instance, reg_id, path)


def _user_agent(text: str | None) -> str:
    """For people: cut to the column, and octets that are no UTF-8 replaced."""
    if not text:
        return ""
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text[:USER_AGENT]


def _allowed(request: Request) -> int | None:
    if request.first("allow") is None:
        return None
    allow = ",".join([row.value for row in request.rows if row.name == "allow"])
    if allow.count(",") > VALUES:
        raise too_many("values", "allow")
    return _methods(allow) if len(allow) <= SHORT else _methods.__wrapped__(allow)


@lru_cache(maxsize=512)
def _methods(allow: str) -> int:
    """The bits of an Allow header; methods without a bit are left out."""
    mask = 0
    for method in allow.split(","):
        mask |= METHODS.get(method.strip(), 0)
    return mask


def contact_row(binding: Binding, at: int, gruus: str = "") -> Header:
    """Contact: a binding as it stands in the 200: the URI and parameters as the phone sent them (CHECKLIST R25, N01).

    `gruus` are our own parameters, each with its `;`.

    Our idea of the log's time may be behind: never more seconds than were granted (R13). 0 would say that it is gone.
    """
    seconds = min(max((binding.expires - at + 500) // 1000, 1), binding.granted)
    return "Contact", f"<{printable(binding.contact)}>{printable(binding.params)};expires={seconds}{gruus}"
