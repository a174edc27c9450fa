"""The published language: what is written validates, what was written stays readable (C01, C03, C20)."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.catalog import CHANNELS, name_of
from events.compatibility import incompatibilities
from events.personal import MARK
from events.topics import ANALYTICS_CHANGELOG, TOPICS, VIEW
from events.wire import Decoder, Happened, encode
from ramal import published
from ramal.published import KINDS, RELEASED, SAMPLES, schema

KIND = {name_of(kind): kind for kind in KINDS}
STORED = sorted(SAMPLES.glob("*/*.jsonl"))


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_c01_every_record_validates_against_its_published_schema(kind: type[Any]) -> None:
    said = json.loads((published.DOCUMENTS / f"{name_of(kind)}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(said)
    for sample in published.samples(kind):
        jsonschema.validate(json.loads(encode(sample)), said)


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_c01_a_record_that_the_schema_refuses_is_refused_by_the_decoder(kind: type[Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema(kind))
    value = json.loads(encode(published.samples(kind)[1]))
    for field in value:
        if field == "type":
            continue
        wrong = {**value, field: {"no": ["such"]} if not isinstance(value[field], dict) else 7}
        assert not validator.is_valid(wrong), field
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(json.dumps(wrong), type=kind)


def test_every_topic_but_that_of_dead_letters_and_fausts_own_is_told_with_its_types() -> None:
    assert set(CHANNELS) == {topic.name for topic in (*TOPICS, *VIEW)} - {"dead", ANALYTICS_CHANGELOG}


def test_c01_the_documents_are_what_the_code_says() -> None:
    assert published.main(["--check"]) == 0


def test_a_stale_document_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(published, "DOCUMENTS", tmp_path)
    assert published.main([]) == 0
    assert published.main(["--check"]) == 0
    (tmp_path / "ramal.CallEnded.json").write_text("{}")
    (tmp_path / "ramal.Other.json").write_text("{}")
    assert published.main(["--check"]) == 1
    assert "ramal.CallEnded.json: is not what the code says" in capsys.readouterr().out


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    said = published.asyncapi()

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            if (reference := node.get("$ref")) is not None:
                if reference.startswith("#/"):
                    there: Any = said
                    for part in reference[2:].split("/"):
                        there = there[part]
                else:
                    assert (published.DOCUMENTS / reference).exists()
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    visit(said)
    assert said["asyncapi"] == "3.0.0"
    assert set(said["components"]["messages"]) == set(KIND)


# --- what was released -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", STORED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_c01_a_sample_of_every_type_of_every_released_version_is_decoded_for_ever(stored: Path) -> None:
    decode: Decoder[Any] = Decoder(KIND[stored.stem])
    for line in stored.read_bytes().splitlines():
        again = json.loads(encode(decode(line)))
        for name, value in json.loads(line).items():
            assert again.get(name, value) == value


def test_c01_every_released_type_has_samples_and_is_compatible() -> None:
    assert published.broken() == []
    assert RELEASED.exists()
    for released in RELEASED.glob("*.json"):
        for name in json.loads(released.read_text()):
            assert (SAMPLES / released.stem / f"{name}.jsonl").exists()


CHANGES: dict[str, Any] = {
    "field goes": lambda fields, required: fields.pop("reason"),
    "new required field": lambda fields, required: (fields.update(more={"type": "string"}), required.append("more")),
    "optional becomes required": lambda fields, required: required.append("reason"),
    "required becomes optional": lambda fields, required: required.remove("to_tag"),
    "type changes": lambda fields, required: fields.update(reason={"type": "integer"}),
    "value of an enumeration goes": lambda fields, required: fields["by"].update(enum=["caller"]),
    "text becomes an enumeration": lambda fields, required: fields["reason"].update(enum=["a"]),
    "bound is narrower": lambda fields, required: fields["cause"].update(maximum=5),
    "new field with a default": lambda fields, required: fields.update(more={"type": "string", "default": ""}),
    "new value of an enumeration": lambda fields, required: fields["by"]["enum"].append("referee"),
    "bound is wider": lambda fields, required: fields["cause"].update(maximum=255),
    "description": lambda fields, required: fields["cause"].update(description="Other words."),
    "none": lambda fields, required: None,
}


def changed(change: str) -> list[str]:
    """What is said of a change to the schema of CallEnded."""
    old = schema(KIND["ramal.CallEnded"])
    new = copy.deepcopy(old)
    said = new["$defs"]["CallEnded"]
    CHANGES[change](said["properties"], said["required"])
    return incompatibilities(old, new)


@pytest.mark.parametrize(
    "change",
    [
        "field goes", "new required field", "optional becomes required", "required becomes optional", "type changes",
        "value of an enumeration goes", "text becomes an enumeration", "bound is narrower",
    ],
)  # fmt: skip
def test_c01_a_change_that_readers_would_stumble_over_is_refused(change: str) -> None:
    assert len(changed(change)) == 1


@pytest.mark.parametrize(
    "change", ["new field with a default", "new value of an enumeration", "bound is wider", "description", "none"]
)
def test_c01_a_change_that_readers_can_follow_is_none(change: str) -> None:
    assert changed(change) == []


def test_c01_changes_of_types_within_types_are_found_and_circles_end() -> None:
    old = schema(KIND["ramal.BindingsRecorded"])
    new = copy.deepcopy(old)
    del new["$defs"]["Binding"]["properties"]["granted"]
    new["$defs"]["Change"]["properties"]["kind"] = {"type": "string"}
    assert len(incompatibilities(old, new)) >= 2
    circle = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}}}
    assert incompatibilities(circle, circle) == []


# --- envelope and persons --------------------------------------------------------------------------------------------


def test_c02_what_happened_carries_its_attributes_in_utc_with_milliseconds() -> None:
    headers = dict(Happened("ramal.CallEnded", "edge", "ab" * 16, "c@x", 1_700_000_000_007))

    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": b"ab" * 16,
        "ce_type": b"ramal.CallEnded",
        "ce_source": b"edge",
        "content-type": b"application/json",
        "ce_subject": b"c@x",
        "ce_time": b"2023-11-14T22:13:20.007Z",
        "ce_dataschema": b"urn:ramal:CallEnded:1",
        "ce_traceparent": dict(Happened("ramal.CallAttempted", "edge", "cd" * 16, "c@x", 1))["ce_traceparent"].replace(
            b"cd" * 8, b"ab" * 8
        ),
    }


@given(st.text(), st.text())
def test_c02_the_records_of_one_call_are_one_trace_in_which_each_event_is_a_span(one: str, other: str) -> None:
    def trace(call_id: str, id_: str) -> re.Match[bytes]:
        found = re.fullmatch(
            rb"00-([0-9a-f]{32})-([0-9a-f]{16})-00",
            dict(Happened("ramal.CallEnded", "edge", id_ * 16, call_id, 1))["ce_traceparent"],
        )
        assert found is not None  # W3C Trace Context, section 3.2
        return found

    assert (trace(one, "ab")[1] == trace(other, "cd")[1]) == (one == other)
    assert trace(one, "ab")[2] != trace(one, "cd")[2]


def test_c20_fields_named_for_a_person_or_a_place_are_marked() -> None:
    """Whoever adds a field with such a name says what it is."""
    personal = {
        "aor", "caller", "callee", "from_uri", "to_uri", "dialled", "asserted", "contact", "source", "user",
        "username", "received", "path", "targets", "answered_by", "transferred_to", "caller_uri", "callee_uri",
        "operator", "instance", "call_id", "name",
    }  # fmt: skip
    for kind in KINDS:
        for struct in schema(kind)["$defs"].values():
            for name, field in struct.get("properties", {}).items():
                if name in personal:
                    assert MARK in json.dumps(field), f"{name_of(kind)}: {name}"
