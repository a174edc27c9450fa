"""The published language as documents, generated from `events`: JSON Schemas, one AsyncAPI document, a table.

python -m ramal.published            writes docs/events anew (`make events`)
python -m ramal.published --check    fails if they are not what the code says, or if the code says what a reader of
                                     a released version would stumble over (part of `make check`)
python -m ramal.published --release  keeps the schemas, and samples of every type, of this version for ever
"""

import inspect
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect as types

from events.catalog import CHANNELS, name_of
from events.compatibility import incompatibilities
from events.personal import MARK
from events.topics import TOPICS, VIEW
from events.wire import VERSION, encode
from ramal.docstrings import told

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ROOT / "docs" / "events"
RELEASED = DOCUMENTS / "released"
SAMPLES = ROOT / "tests" / "samples"
KINDS = list(dict.fromkeys(kind for channel in CHANNELS.values() for kind in channel.kinds))


def schema(kind: type[Any]) -> dict[str, Any]:
    """The JSON Schema of a record type, with what the code says of each field."""
    (reference,), components = msgspec.json.schema_components([kind])
    for struct in _structs(kind):
        described = components[struct.__name__]
        described["description"] = inspect.cleandoc(struct.__doc__ or "")
        for field, text in told(struct).items():
            if field in described["properties"]:
                described["properties"][field]["description"] = text
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:ramal:{kind.__name__}:{VERSION}",
        **reference,
        "$defs": components,
    }


def _structs(kind: type[Any]) -> list[type[Any]]:
    """A type and the types of ours within it."""
    found: dict[type[Any], None] = {}

    def visit(node: Any) -> None:
        if isinstance(node, types.StructType):
            if node.cls in found:
                return
            found[node.cls] = None
            for field in node.fields:
                visit(field.type)
        elif isinstance(node, types.Metadata):
            visit(node.type)
        for name in ("types", "item_types"):
            for each in getattr(node, name, ()):
                visit(each)
        for name in ("item_type", "value_type"):
            if hasattr(node, name):
                visit(getattr(node, name))

    visit(types.type_info(kind))
    return list(found)


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of all topics."""
    channels, operations, messages = {}, {}, {}
    topics = {topic.name: topic for topic in (*TOPICS, *VIEW)}
    for topic, channel in CHANNELS.items():
        named = {name_of(kind): {"$ref": f"#/components/messages/{name_of(kind)}"} for kind in channel.kinds}
        kept = topics[topic]
        keeping = "compacted" if kept.compacted else f"kept for {kept.retention_ms // 60_000} min"
        channels[topic] = {
            "address": f"ramal.{topic}",
            "title": topic,
            "description": f"Key: {kept.key}; {keeping}. Written by {', '.join(channel.writers)}.",
            "messages": named,
            "bindings": {"kafka": {"bindingVersion": "0.5.0", "topic": f"ramal.{topic}"}},
        }
        for action, who in (("send", channel.writers), ("receive", channel.readers)):
            for name in who:
                operations[f"{name}.{action}.{topic}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{topic}"},
                    "messages": [{"$ref": f"#/channels/{topic}/messages/{message}"} for message in named],
                }
    for kind in KINDS:
        messages[name_of(kind)] = {
            "name": name_of(kind),
            "contentType": "application/json",
            "summary": inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " "),
            "headers": {"$ref": "#/components/schemas/cloudevents"},
            "payload": {
                "schemaFormat": "application/schema+json;version=draft-2020-12",
                "schema": {"$ref": f"{name_of(kind)}.json"},
            },
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Ramal",
            "version": f"{VERSION}.0.0",
            "description": "Topics of a SIP registrar and proxy. Every record has CloudEvents 1.0 attributes as Kafka"
            " headers (binary mode); values are JSON. Fields with `x-personal` tell of a person.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": {"cloudevents": _CLOUDEVENTS}},
    }


_CLOUDEVENTS = {
    "type": "object",
    "required": ["ce_specversion", "ce_id", "ce_type", "ce_source", "content-type"],
    "properties": {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "description": "Equal ids: the same event, perhaps written twice."},
        "ce_type": {"type": "string"},
        "ce_source": {"type": "string", "description": "The service that wrote it."},
        "ce_subject": {"type": "string", "description": "Of what happened to a call: its Call-ID."},
        "ce_time": {"type": "string", "format": "date-time", "description": "When it happened, UTC."},
        "ce_dataschema": {"type": "string", "description": "`urn:ramal:TYPE:VERSION`: the `$id` of its schema."},
        "ce_traceparent": {
            "type": "string",
            "description": "W3C Trace Context: one trace of each call, made from its Call-ID; the event is the span.",
        },
        "content-type": {"const": "application/json"},
    },
}


_GENERATED = (
    "Generated from `events/` by `make events`; do not edit. [asyncapi.json](asyncapi.json) says the same to programs,"
    " beside one JSON Schema for each type."
)
_MARKED = "A field in *italics* tells of a person (`x-personal` in the schemas). Fields in parentheses may be absent."


def table() -> str:
    """All types for people, in Markdown."""
    lines = [
        "# Events",
        "",
        _GENERATED,
        "",
        _MARKED,
    ]
    for topic, channel in CHANNELS.items():
        key = next(known.key for known in (*TOPICS, *VIEW) if known.name == topic)
        lines += ["", f"## {topic}", "", f"Key: {key}. Written by {', '.join(channel.writers)}.", ""]
        lines += ["| type | what happened | fields |", "|---|---|---|"]
        for kind in channel.kinds:
            properties = schema(kind)["$defs"][kind.__name__]
            said = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            required = properties.get("required", ())
            fields = ", ".join(
                _field(name, field, absent=name not in required)
                for name, field in properties["properties"].items()
                if name != "type"
            )
            lines.append(f"| [`{name_of(kind)}`]({name_of(kind)}.json) | {said} | {fields} |")
    return "\n".join(lines) + "\n"


def _field(name: str, field: Any, *, absent: bool) -> str:
    text = f"*{name}*" if MARK in field or MARK in field.get("items", {}) else name
    return f"({text})" if absent else text


def documents() -> dict[str, str]:
    """Every document by file name."""
    found = {f"{name_of(kind)}.json": _text(schema(kind)) for kind in KINDS}
    return found | {"asyncapi.json": _text(asyncapi()), "README.md": table()}


def _text(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


# --- what was released stays readable --------------------------------------------------------------------------------


def broken() -> list[str]:
    """What the code says now and a reader of a released version would stumble over."""
    found = []
    now = {name_of(kind): schema(kind) for kind in KINDS}
    for released in sorted(RELEASED.glob("*.json")):
        for name, old in json.loads(released.read_text()).items():
            if name not in now:
                found.append(f"{released.stem}: {name}: the type is gone")
            else:
                found += [f"{released.stem}: {name}: {fault}" for fault in incompatibilities(old, now[name])]
    return found


def samples(kind: type[Any]) -> tuple[Any, Any]:
    """A value with what must be there, and one with all fields."""
    return _sample(types.type_info(kind), full=False), _sample(types.type_info(kind), full=True)


def _sample(node: Any, *, full: bool) -> Any:
    if isinstance(node, types.StructType):
        wanted = [field for field in node.fields if full or field.required]
        return node.cls(**{field.name: _sample(field.type, full=full) for field in wanted})
    if isinstance(node, types.Metadata):
        return _sample(node.type, full=full)
    if isinstance(node, types.UnionType):
        return _sample(next(each for each in node.types if not isinstance(each, types.NoneType)), full=full)
    if isinstance(node, types.VarTupleType):
        return (_sample(node.item_type, full=full),)
    if isinstance(node, types.TupleType):
        return tuple(_sample(each, full=full) for each in node.item_types)
    if isinstance(node, types.DictType):
        return {_sample(node.key_type, full=full): _sample(node.value_type, full=full)}
    if isinstance(node, types.EnumType):
        return next(iter(node.cls))
    if isinstance(node, types.LiteralType):
        return max(node.values, key=str)
    simple: dict[type[Any], Any] = {
        types.StrType: "sip:alice@example.test", types.IntType: 200, types.FloatType: 0.5, types.BoolType: True,
    }  # fmt: skip
    if isinstance(node, types.IntType):
        return min(200, node.le) if node.le is not None else 200
    return simple[type(node)]


def release() -> None:
    """Keeps this version's schemas and samples."""
    number = version("ramal")
    RELEASED.mkdir(parents=True, exist_ok=True)
    (RELEASED / f"{number}.json").write_text(_text({name_of(kind): schema(kind) for kind in KINDS}))
    directory = SAMPLES / number
    directory.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        lines = b"".join(encode(sample) + b"\n" for sample in samples(kind))
        (directory / f"{name_of(kind)}.jsonl").write_bytes(lines)


def main(arguments: list[str]) -> int:
    """Writes, checks or releases; the exit code."""
    if arguments == ["--release"]:
        release()
        return 0
    wanted = documents()
    if arguments == ["--check"]:
        faults = [f"{name}: is not what the code says: run `make events`" for name, text in wanted.items()
                  if not (DOCUMENTS / name).exists() or (DOCUMENTS / name).read_text() != text]  # fmt: skip
        faults += [f"{path.name}: no such type" for path in DOCUMENTS.glob("*.json") if path.name not in wanted]
        faults += broken()
        print("\n".join(faults) or "docs/events says what the code says.")
        return 1 if faults else 0
    DOCUMENTS.mkdir(parents=True, exist_ok=True)
    for path in DOCUMENTS.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (DOCUMENTS / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
