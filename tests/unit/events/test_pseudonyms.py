"""C20: in the analysts' view nobody is named, and whose key is gone is nobody's."""

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from events.calls import CallAttempted, CallEnded
from events.catalog import CHANNELS, name_of
from events.cdrs import CallRecord
from events.people import FORGOTTEN, PersonForgotten
from events.personal import MARK
from events.pseudonyms import VIEW, forgotten, is_shown, person_of, persons, pseudonymised, view_headers
from events.registrations import AorState, Binding, BindingsRecorded, Change, Claimed, Kind
from events.topics import VIEW as VIEW_TOPICS
from events.wire import Happened, encode
from ramal import published

SERVED = ("example.test",)
KINDS = list(dict.fromkeys(kind for topic in VIEW_TOPICS for kind in CHANNELS[topic.name].kinds))


class Keys(dict[str, bytes]):
    """A key for everybody who is asked for."""

    def __missing__(self, person: str) -> bytes:
        self[person] = f"key of {person}".encode()
        return self[person]


def named(schema: dict[str, Any], node: dict[str, Any], value: Any, text: str) -> Any:
    """A value with a text in all that its schema marks, found by the schema alone."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    if "anyOf" in node:
        node = next(each for each in node["anyOf"] if each.get("type") != "null")
        return named(schema, node, value, text)
    if MARK in node:
        return text
    if isinstance(value, dict):
        fields = node.get("properties", {})
        return {key: named(schema, fields[key], each, text) if key in fields else each for key, each in value.items()}
    if isinstance(value, list):
        if "prefixItems" in node:
            return [named(schema, sub, each, text) for sub, each in zip(node["prefixItems"], value, strict=False)]
        return [named(schema, node["items"], each, text) for each in value]
    return value


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_c20_nothing_that_a_schema_marks_is_in_the_view_and_the_schema_still_holds(kind: type[Any]) -> None:
    schema = published.schema(kind)
    plain = json.loads(encode(published.samples(kind)[1]))
    value = msgspec.json.decode(json.dumps(named(schema, schema, plain, "sip:mallory@198.51.100.7")), type=kind)
    assert "mallory" in encode(value).decode()

    shown = encode(pseudonymised(value, Keys(), SERVED)).decode()

    assert "mallory" not in shown
    assert "198.51.100.7" not in shown
    jsonschema.validate(json.loads(shown), schema)
    msgspec.json.decode(shown, type=kind)


def attempt(**more: str) -> CallAttempted:
    fields = {
        "call_id": "c@192.0.2.4", "from_tag": "t", "cseq": 1, "at": 5, "edge": "edge-1",
        "from_uri": "sip:alice@example.test", "to_uri": "sip:bob@example.test", "dialled": "sip:bob@example.test",
    }  # fmt: skip
    return CallAttempted(**(fields | more))


@pytest.mark.parametrize(
    "text",
    [
        "sip:alice@example.test",
        "alice@example.test",
        "sips:alice@EXAMPLE.test:5061;user=phone",
        "sip:%61lice@example.test",
    ],
)
def test_one_person_has_one_pseudonym_however_the_uri_is_spelled(text: str) -> None:
    assert person_of(text) == "alice@example.test"


def test_a_domain_of_ours_stays_and_others_go() -> None:
    shown = pseudonymised(attempt(to_uri="sip:dr.x@clinic.test"), Keys(), SERVED)

    assert shown.from_uri.endswith("@example.test")
    assert "clinic" not in shown.to_uri


def test_an_alias_or_a_number_that_was_dialled_is_the_person_it_leads_to() -> None:
    keys = Keys()
    by_number = pseudonymised(attempt(callee="bob@example.test", dialled="tel:+4711", to_uri="tel:+4711"), keys, SERVED)
    by_name = pseudonymised(attempt(callee="bob@example.test"), keys, SERVED)

    assert by_number.dialled == by_number.to_uri == by_number.callee == by_name.callee
    record = CallRecord(
        call_id="c", from_tag="t", cseq=1, outcome="failed", attempted=1, ours=True, callee="bob@example.test",
        dialled="sip:reception@example.test",
    )  # fmt: skip
    assert pseudonymised(record, keys, SERVED).dialled == by_name.callee


def test_c20_with_another_key_a_person_is_another_and_calls_still_join() -> None:
    before, after = Keys(), Keys({"alice@example.test": b"a new one"})
    one, other = (pseudonymised(attempt(caller="alice@example.test"), keys, SERVED) for keys in (before, after))

    assert one.caller != other.caller
    assert one.call_id == other.call_id == pseudonymised(
        CallEnded(call_id="c@192.0.2.4", from_tag="t", cseq=1, at=9, edge="e", to_tag="x", by="caller"), before, SERVED
    ).call_id  # fmt: skip


def registration(**more: Any) -> BindingsRecorded:
    binding = Binding(
        7, "sip:alice@192.0.2.4", "reg-1@192.0.2.4", 1, 900, 300, 1, 1, instance="<urn:uuid:1>",
        params=';+sip.instance="<urn:uuid:1>"', received="sip:192.0.2.4:5060",
    )  # fmt: skip
    changes = (Change(Kind.CREATED, 7, binding.contact),)
    return BindingsRecorded("i", "alice@example.test", "alice@example.test", changes, AorState(9, (binding,)), **more)


def test_c20_a_new_key_separates_a_phone_from_what_it_was() -> None:
    """The same +sip.instance, under both keys, would tell who the former pseudonym was."""
    one = pseudonymised(registration(), Keys(), SERVED).state.bindings[0]
    other = pseudonymised(registration(), Keys({"alice@example.test": b"new"}), SERVED).state.bindings[0]

    assert one.instance != other.instance
    assert one.call_id != other.call_id
    assert "uuid" not in one.params


def test_c16_the_view_of_a_registration_has_all_that_is_no_place() -> None:
    shown = pseudonymised(registration(), Keys(), SERVED)

    assert shown.changes[0].kind is Kind.CREATED
    assert (shown.state.bindings[0].granted, shown.state.bindings[0].expires) == (300, 900)


def test_everybody_whose_key_is_needed_is_asked_for_at_once() -> None:
    value = attempt(caller="alice@example.test", callee="bob@example.test")

    assert persons(value) == {VIEW, "alice@example.test", "bob@example.test"}
    assert persons(registration()) == {VIEW, "alice@example.test"}


def test_what_names_nobody_stays() -> None:
    assert person_of("expiry") == person_of("") == person_of(FORGOTTEN) == ""
    expired = msgspec.structs.replace(registration(), by="expiry")
    assert pseudonymised(expired, Keys(), SERVED).by == "expiry"


def test_what_says_to_forget_somebody_is_not_in_the_view() -> None:
    told = PersonForgotten("alice@example.test", "root", 1)
    gone = registration(forgotten=True)

    assert [forgotten(each) for each in (told, gone, registration())] == ["alice@example.test"] * 2 + [""]
    assert not is_shown(told)
    assert not is_shown(gone)
    assert not is_shown(Claimed("registrar-1"))
    record = CallRecord(call_id="c", from_tag="t", cseq=1, outcome="failed", attempted=1, caller=FORGOTTEN)
    assert not is_shown(record)
    assert is_shown(registration())


def test_the_attributes_of_a_record_in_the_view_name_no_call_and_leave_traces_out() -> None:
    keys = Keys()
    headers = Happened("ramal.CallEnded", "edge", "ab" * 16, "c@192.0.2.4", 5)
    shown = dict(view_headers(headers, keys))

    assert set(shown) == {name for name, _ in headers} - {"ce_traceparent"}
    assert shown["ce_subject"].decode() == pseudonymised(attempt(), keys, SERVED).call_id
    assert shown["ce_id"] != b"ab" * 16
    assert shown["ce_type"] == b"ramal.CallEnded"
