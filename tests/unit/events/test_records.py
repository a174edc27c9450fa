"""The published language: partitions as any Kafka client's, and decoding that is total."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.commands import Contact, Registration
from events.registrations import (
    AorState,
    Binding,
    BindingsRecorded,
    Change,
    Claimed,
    Kind,
    RegistrationEvent,
    binding_id,
)
from events.topics import TOPICS, murmur2, partition_of
from events.wire import Decoder, Poisoned, cloud_event, encode, int_header


@pytest.mark.parametrize(
    ("key", "expected"),
    # From Apache Kafka's own UtilsTest.testMurmur2.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_kafkas_default_partitioner(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


@given(st.text(max_size=80), st.integers(1, 64))
def test_a_partition_is_always_within_the_count(key: str, count: int) -> None:
    assert 0 <= partition_of(key, count) < count


def test_the_three_topics_of_a_registration_have_one_partition_count() -> None:
    counts = {t.partitions for t in TOPICS if t.name in ("registrar.commands", "registrations", "bindings")}

    assert counts == {None}


@given(st.binary(max_size=300))
def test_any_bytes_decode_to_an_event_or_are_poisoned(value: bytes) -> None:
    decoder: Decoder[RegistrationEvent] = Decoder(RegistrationEvent)
    try:
        event = decoder(value)
    except Poisoned:
        return
    assert isinstance(event, BindingsRecorded | Claimed)


def test_a_missing_value_is_poisoned() -> None:
    with pytest.raises(Poisoned):
        Decoder(RegistrationEvent)(None)


def test_an_event_survives_the_wire() -> None:
    binding = Binding(id=1, contact="sip:a@192.0.2.1", call_id="c", cseq=1, expires=9, granted=1, created=0, updated=0)
    event = BindingsRecorded(
        id="x",
        aor="a@example.test",
        by="a@example.test",
        changes=(Change(Kind.CREATED, 1, binding.contact),),
        state=AorState(at=5, bindings=(binding,)),
    )

    assert Decoder(RegistrationEvent)(encode(event)) == event


def test_a_deeply_nested_value_is_poisoned_and_no_crash() -> None:
    with pytest.raises(Poisoned):
        Decoder(RegistrationEvent)(b'{"type":"ramal.Claimed","registrar":' + b"[" * 100_000)


def test_headers_that_are_no_number_are_poisoned() -> None:
    for value in (b"-1", b"", b"1e3", b"x"):
        with pytest.raises(Poisoned):
            int_header([("s", value)], "s")
    with pytest.raises(Poisoned):
        int_header([], "s")


def test_a_record_carries_the_required_cloudevents_attributes() -> None:
    names = [name for name, _ in cloud_event("ramal.Claimed", "registrar", "1")]

    assert {"ce_specversion", "ce_id", "ce_type", "ce_source"} <= set(names)


@given(st.integers(0, 1023), st.integers(0, 2**47 - 1), st.integers(0, 63))
def test_binding_ids_fit_a_signed_bigint_and_tell_commands_apart(partition: int, command: int, index: int) -> None:
    id_ = binding_id(partition, command, index)

    assert 0 <= id_ < 2**63
    assert (id_ >> 16, id_ >> 6 & 0x3FF, id_ & 0x3F) == (command, partition, index)


def test_absent_fields_cost_no_octet() -> None:
    value = msgspec.json.decode(
        encode(Registration(call_id="c", cseq=1, branch="b", contacts=(Contact(uri="sip:a@b"),)))
    )

    assert value == {"call_id": "c", "cseq": 1, "branch": "b", "contacts": [{"uri": "sip:a@b"}]}
