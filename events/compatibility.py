"""Whether a record type may change so: readers of today must read what was written, and readers of then what will be.

Allowed is a new field with a default, a new type on a topic, a new value of an enumeration, a wider bound. Refused is
a field that goes, comes as required, or changes its type, a narrower bound, a type or value that goes. (Readers are
upgraded before writers: docs/operating.md.)
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """What a reader would stumble over, one sentence each; both are JSON Schemas with their `$defs`."""
    return list(_differ(old, new, old, new, "value", frozenset()))


def _differ(old: Any, new: Any, olds: Schema, news: Schema, at: str, seen: frozenset[str]) -> Iterator[str]:
    if "$ref" in old and "$ref" in new:
        if old["$ref"] in seen:
            return
        seen = seen | {old["$ref"]}
    old, new = _resolved(old, olds), _resolved(new, news)
    if old.get("type") != new.get("type"):
        yield f"{at}: its type changed from {old.get('type')} to {new.get('type')}"
        return
    yield from _values(old, new, at)
    yield from _bounds(old, new, at)
    for many in ("anyOf", "prefixItems"):
        yield from _members(old.get(many, []), new.get(many, []), olds, news, f"{at} ({many})", seen)
    for one in ("items", "additionalProperties"):
        if isinstance(old.get(one), Mapping) and isinstance(new.get(one), Mapping):
            yield from _differ(old[one], new[one], olds, news, f"{at}[]", seen)
    yield from _fields(old, new, olds, news, at, seen)


def _resolved(schema: Any, root: Schema) -> Any:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _values(old: Any, new: Any, at: str) -> Iterator[str]:
    if "enum" in old and (gone := [value for value in old["enum"] if value not in new.get("enum", old["enum"])]):
        yield f"{at}: {', '.join(map(str, gone))} is no value any more"
    if "enum" in new and "enum" not in old:
        yield f"{at}: it has become an enumeration"


def _bounds(old: Any, new: Any, at: str) -> Iterator[str]:
    for bound in _LOWER:
        if bound in new and (bound not in old or new[bound] > old[bound]):
            yield f"{at}: {bound} is narrower"
    for bound in _UPPER:
        if bound in new and (bound not in old or new[bound] < old[bound]):
            yield f"{at}: {bound} is narrower"


def _members(old: Any, new: Any, olds: Schema, news: Schema, at: str, seen: frozenset[str]) -> Iterator[str]:
    for index, member in enumerate(old):
        if index >= len(new):
            yield f"{at}: member {index} is gone"
        else:
            yield from _differ(member, new[index], olds, news, f"{at}[{index}]", seen)


def _fields(old: Any, new: Any, olds: Schema, news: Schema, at: str, seen: frozenset[str]) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    required_before, required_after = set(old.get("required", ())), set(new.get("required", ()))
    for name, schema in before.items():
        if name not in after:
            yield f"{at}.{name}: the field is gone"
        else:
            yield from _differ(schema, after[name], olds, news, f"{at}.{name}", seen)
    for name in sorted(required_after - required_before):
        yield f"{at}.{name}: it is required now"
    for name in sorted(required_before - required_after):
        if name in after:
            yield f"{at}.{name}: it was always there, and may be absent now"
