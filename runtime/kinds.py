"""PURE. Values of settings made typed; what a type allows, in words for whoever typed something else."""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import msgspec

from runtime.errors import ConfigError

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "a table, in the environment one of JSON such as {}",
}


def typed(key: str, kind: Any, value: Any, given: Any) -> Any:
    """A value of this type; `given` is what was typed. Raises ConfigError that names the key, that, and what may be."""
    try:
        made = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        if get_origin(kind) is Literal:
            raise ConfigError(f"{key}: {given!r} is none of {', '.join(get_args(kind))}") from None
        if isinstance(value, Mapping) or not (wanted := wanted_of(kind)):
            raise ConfigError(f"{key}: {error}") from error  # which says where in it
        raise ConfigError(f"{key}: {given!r} is not {wanted}") from None
    if isinstance(made, float) and not math.isfinite(made):
        raise ConfigError(f"{key}: {given!r} is not {wanted_of(kind)}")
    return made


def wanted_of(kind: Any) -> str:
    """What a setting of this type may be, for people; "" for a type that no simple words tell."""
    bounds: list[msgspec.Meta] = list(getattr(kind, "__metadata__", ()))
    base = get_args(kind)[0] if bounds else kind
    if get_origin(base) is tuple and len(set(get_args(base))) == 1:  # as many of one kind
        return f"{len(get_args(base))} of these, comma-separated: {wanted_of(get_args(base)[0])}"
    if get_origin(base) is tuple and get_origin(get_args(base)[0]) is Literal:
        return f"a list of any of {', '.join(get_args(get_args(base)[0]))}"
    words = _KINDS.get(get_origin(base) or base, "")
    for each in bounds:
        if each.ge is not None and each.le is not None:
            return f"{words} from {each.ge:g} to {each.le:g}"
        words += f" of at least {each.ge:g}" if each.ge is not None else ""
        words += f" above {each.gt:g}" if each.gt is not None else ""
    return words
