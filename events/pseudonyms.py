"""The analysts' view of a record: who it tells of is a pseudonym, where he was is left out. PURE.

A person's pseudonym is an HMAC under a key of his own, so without the key nobody can say whose it was, and whoever
has a later key gets another one. `x-personal` says what becomes of a field (`events.personal`): a `person` becomes
`PSEUDONYM@DOMAIN` (the domain only if it is one of ours), a `name` a pseudonym under the view's own key, or under
that of the one person a record is about, and a `place` an empty text. Types stay, so the schemas are the same.
"""

import base64
import hmac
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import inspect as types

from events.calls import CallAttempted, MessageAttempted
from events.cdrs import CallRecord
from events.people import FORGOTTEN, PersonForgotten
from events.personal import MARK
from events.registrations import BindingsRecorded, Claimed
from events.wire import Header, Headers
from sipcore.errors import ParseError
from sipcore.uri import aor, parse_uri

NOBODY = frozenset({"", "expiry", "flow-lost", "user-gone", FORGOTTEN})
"""Values of personal fields that name no person."""
VIEW = ""
"""Whose key is the view's own: nobody's."""
WIDTH = 255
"""Characters of a person's name that count."""
_PASS = frozenset({"ce_specversion", "ce_type", "ce_source", "ce_time", "ce_dataschema", "content-type"})

Keys = Mapping[str, bytes]
"""By person; `VIEW` is among them."""
_Text = Callable[[str], str]
_Rule = Callable[[Any, Mapping[str, _Text]], Any]


@lru_cache(maxsize=4096)
def person_of(text: str) -> str:
    """Whom an AOR, a URI or a number names, always in one spelling; "" for nobody."""
    if text in NOBODY:
        return ""
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() == "tel":
        return rest.partition(";")[0][:WIDTH]
    try:
        return aor(parse_uri(text if colon and scheme.lower() in ("sip", "sips") else f"sip:{text}"))[:WIDTH]
    except ParseError:
        return text[:WIDTH]


def persons(value: Any) -> set[str]:
    """Everybody whose key is needed for the view of this record; `VIEW` among them."""
    found = {VIEW}

    def person(text: str) -> str:
        found.add(person_of(text))
        return text

    _walk(value, {"person": person, "name": str, "place": str})
    return found


def forgotten(value: Any) -> str:
    """Whom a record says to forget; "" for nobody."""
    if isinstance(value, PersonForgotten):
        return person_of(value.person)
    return person_of(value.aor) if isinstance(value, BindingsRecorded) and value.forgotten else ""


def is_shown(value: Any) -> bool:
    """Whether the view has a record of it: not of claims, nor of what only says that somebody is forgotten."""
    if isinstance(value, CallRecord):
        return FORGOTTEN not in (value.caller, value.callee)
    return not isinstance(value, Claimed | PersonForgotten) and not forgotten(value)


def pseudonymised(value: Any, keys: Keys, served: Collection[str]) -> Any:
    """The record as analysts see it."""
    own = keys[person_of(value.aor)] if isinstance(value, BindingsRecorded) else keys[VIEW]

    def person(text: str) -> str:
        whose = person_of(text)
        if not whose:
            return text
        domain = whose.rpartition("@")[2]
        return f"{pseudonym(keys[whose], whose)}@{domain}" if domain in served else pseudonym(keys[whose], whose)

    def name(text: str) -> str:
        return pseudonym(own, text) if text else ""

    return _walk(_united(value), {"person": person, "name": name, "place": lambda _: ""})


def pseudonym(key: bytes, text: str) -> str:
    """17 characters, lower case, that begin with `p`; 80 bits of an HMAC."""
    digest = hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256")[:10]
    return "p" + base64.b32encode(digest).decode().lower()


def view_headers(headers: Headers, keys: Keys) -> tuple[Header, ...]:
    """The attributes of the record in the view: its id and subject are pseudonyms, traces are left out."""

    def shown() -> Iterable[Header]:
        for name, value in headers:
            if name in _PASS:
                yield name, value
            elif name == "ce_id":
                yield name, hmac.digest(keys[VIEW], value, "sha256")[:16].hex().encode()
            elif name == "ce_subject":
                yield name, pseudonym(keys[VIEW], value.decode("utf-8", "replace")).encode()

    return tuple(shown())


def _united(value: Any) -> Any:
    """What leads to one person names him alike: an alias or a number that was dialled is whom it was of."""
    if isinstance(value, CallAttempted | MessageAttempted):
        changes: dict[str, str] = {}
        if value.callee:
            changes |= {"dialled": value.callee, "to_uri": value.callee}
        if value.caller:
            changes |= {"from_uri": value.caller}
            if isinstance(value, CallAttempted) and value.asserted:
                changes["asserted"] = value.caller
        return msgspec.structs.replace(value, **changes)
    if isinstance(value, CallRecord) and value.ours:
        return msgspec.structs.replace(value, dialled=value.callee)
    return value


# --- what the schemas mark -------------------------------------------------------------------------------------------


def _walk(value: Any, marks: Mapping[str, _Text]) -> Any:
    kind: Any = type(value)  # typeshed wants proof that a class can be hashed
    rule = _rule_of(kind)
    return value if rule is None else rule(value, marks)


@lru_cache(maxsize=256)
def _rule_of(kind: Any) -> _Rule | None:
    return _rule(types.type_info(kind))


def _rule(node: Any) -> _Rule | None:
    """How a value of this type is walked through; None: nothing in it is marked."""
    if isinstance(node, types.Metadata):
        mark = (node.extra_json_schema or {}).get(MARK)
        return _rule(node.type) if mark is None else _marked(mark)
    if isinstance(node, types.StructType):
        rules = {field.name: rule for field in node.fields if (rule := _rule(field.type)) is not None}
        return _fields(rules) if rules else None
    if isinstance(node, types.VarTupleType):
        inner = _rule(node.item_type)
        return None if inner is None else _items(inner)
    if isinstance(node, types.UnionType):
        for each in node.types:  # a value or none
            if not isinstance(each, types.NoneType) and (rule := _rule(each)) is not None:
                return _optional(rule)
    return None


def _marked(mark: str) -> _Rule:
    return lambda value, marks: marks[mark](value)


def _fields(rules: Mapping[str, _Rule]) -> _Rule:
    def walk(value: Any, marks: Mapping[str, _Text]) -> Any:
        return msgspec.structs.replace(
            value, **{name: rule(getattr(value, name), marks) for name, rule in rules.items()}
        )

    return walk


def _items(inner: _Rule) -> _Rule:
    return lambda value, marks: tuple(inner(each, marks) for each in value)


def _optional(inner: _Rule) -> _Rule:
    return lambda value, marks: None if value is None else inner(value, marks)
