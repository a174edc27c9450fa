"""PURE. Values of settings made typed; what a type allows, in words for whoever typed something else."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

import msgspec

from runtime.errors import ConfigError

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text, in quotes",
    dict: "a table, in the environment one of JSON such as {}",
}
_BARE = re.compile(r"[A-Za-z0-9_-]+")
"""A key that TOML takes without quotes."""


def typed(key: str, kind: Any, value: Any, given: Any) -> Any:
    """A value of this type; `given` is what was typed. Raises ConfigError that names the key, that, and what may be."""
    try:
        made = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        if get_origin(kind) is Literal:
            raise ConfigError(f"{key}: {given!r} is none of {', '.join(get_args(kind))}") from None
        if isinstance(value, Mapping):
            _check_entries(key, kind, value)
        if not (wanted := wanted_of(kind)):
            raise ConfigError(f"{key}: {error}") from error
        raise ConfigError(f"{key}: {given!r} is not {wanted}") from None
    if isinstance(made, float) and not math.isfinite(made):
        raise ConfigError(f"{key}: {given!r} is not {wanted_of(kind)}")
    return made


def _check_entries(key: str, kind: Any, table: Mapping[Any, Any]) -> None:
    """Raises ConfigError for the first entry of a table that is to blame, named as TOML spells it."""
    if get_origin(kind) is dict:
        names, entries = get_args(kind)
        for name, value in table.items():
            typed(f"{key}: the name of an entry", names, name, name)
            typed(_inside(key, name), entries, value, value)
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        for name, value in table.items():
            if name not in fields:
                raise ConfigError(f"{_inside(key, name)}: there is no such setting{meant(name, fields)}")
            typed(_inside(key, name), fields[name].type, value, value)
        for name, field in fields.items():
            if field.required and name not in table:
                raise ConfigError(f"{_inside(key, name)}: is not set")


def _inside(key: str, name: object) -> str:
    return f"{key}.{name if _BARE.fullmatch(str(name)) else json.dumps(str(name), ensure_ascii=False)}"


def meant(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean X?` where there is something like it, else nothing."""
    near = difflib.get_close_matches(name, known, 1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def wanted_of(kind: Any) -> str:
    """What a setting of this type may be, for people; "" for a type that no simple words tell."""
    bounds: list[msgspec.Meta] = list(getattr(kind, "__metadata__", ()))
    base = get_args(kind)[0] if bounds else kind
    if get_origin(base) is tuple and len(set(get_args(base))) == 1:  # as many of one kind
        return f"{len(get_args(base))} of these, comma-separated: {wanted_of(get_args(base)[0])}"
    if get_origin(base) is tuple and get_origin(get_args(base)[0]) is Literal:
        return f"a list of any of {', '.join(get_args(get_args(base)[0]))}"
    if base == tuple[str, ...]:
        return "a list of texts, in quotes"
    of = get_origin(base) or base
    words = _KINDS.get(dict if isinstance(of, type) and issubclass(of, msgspec.Struct) else of, "")
    for each in bounds:
        if each.ge is not None and each.le is not None:
            return f"{words} from {each.ge:g} to {each.le:g}"
        words += f" of at least {each.ge:g}" if each.ge is not None else ""
        words += f" above {each.gt:g}" if each.gt is not None else ""
    return words
