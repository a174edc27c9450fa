"""Frames and their sealing: what two edges say is whole, theirs alone, and of this connection."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.flow import Flow
from edge.mesh.frames import (
    ClaimFrame,
    ForwardFrame,
    Frame,
    Hello,
    Ping,
    Pong,
    SeekFrame,
    SendFrame,
    Unsent,
    decode,
    decode_hello,
    encode,
)
from edge.mesh.sealing import HEAD, HELLO, RECORD, VERSION, BadRecord, Sealing

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
KEYS = {"k1": OLD}
UDP = Flow("udp", "192.0.2.1", 5060, "198.51.100.7", 40_000)
WSS = Flow("wss", "2001:db8::1", 443, "2001:db8::7", 40_000, 77)
FRAMES: list[Frame] = [
    SendFrame(WSS, b"INVITE", 0, "z9hG4bK1", "example.test"),
    SendFrame(UDP, b"\0\xff", 5062),
    Unsent("z9hG4bK1", 430),
    ForwardFrame(UDP, b"SIP/2.0 200 OK"),
    SeekFrame("s1", UDP, b"CANCEL"),
    ClaimFrame("s1", True),
    Ping(),
    Pong(),
]


def pair(dialling: dict[str, bytes] = KEYS, accepting: dict[str, bytes] = KEYS) -> tuple[Sealing, Sealing]:
    """Two sides that have heard each other's heads."""
    dialler = Sealing(dialling, bytes(32), dials=True)
    acceptor = Sealing(accepting, bytes([1]) * 32, dials=False)
    assert acceptor.feed(dialler.head) == []
    assert dialler.feed(acceptor.head) == []
    return dialler, acceptor


def test_every_frame_comes_out_as_it_went_in() -> None:
    assert decode(encode(FRAMES)) == (FRAMES, 0)
    assert decode_hello(encode(Hello("edge-1", "b00t"))) == Hello("edge-1", "b00t")


def test_e19_a_frame_of_a_later_version_is_dropped_alone() -> None:
    later = msgspec.msgpack.encode([99, "what"])
    longer = msgspec.msgpack.encode([5, "s1", True, "more"])
    record = b"\x93" + later + longer + encode(Ping())
    assert decode(record) == ([ClaimFrame("s1", True), Ping()], 1)


@given(st.binary(max_size=200))
def test_any_octets_are_frames_or_not_and_break_nothing(octets: bytes) -> None:
    frames, unreadable = decode(octets)
    assert all(isinstance(frame, Frame) for frame in frames)
    assert unreadable >= 0
    assert isinstance(decode_hello(octets), Hello | None)


@given(st.lists(st.binary(max_size=300), max_size=5), st.lists(st.integers(1, 50), min_size=1))
def test_records_come_out_whole_however_the_octets_are_cut(records: list[bytes], cuts: list[int]) -> None:
    dialler, acceptor = pair()
    octets = b"".join(dialler.seal(record) for record in records)
    heard: list[bytes] = []
    at = 0
    for cut in itertools.cycle(cuts):
        if at >= len(octets):
            break
        heard += acceptor.feed(octets[at : at + cut])
        at += cut
    assert heard == records


def test_both_directions_are_sealed_by_keys_of_their_own() -> None:
    dialler, acceptor = pair()
    there, back = dialler.seal(b"same"), acceptor.seal(b"same")
    assert there != back
    assert b"same" not in there
    with pytest.raises(BadRecord, match="edge-stranger"):
        dialler.feed(there)  # reflected
    assert acceptor.feed(there) == [b"same"]
    assert acceptor.proved
    assert not dialler.proved


def test_a_record_that_is_repeated_breaks_the_connection() -> None:
    dialler, acceptor = pair()
    record = dialler.seal(b"BYE")
    assert acceptor.feed(record) == [b"BYE"]
    with pytest.raises(BadRecord, match="edge-record-forged"):
        acceptor.feed(record)


def test_what_was_taken_down_from_another_connection_proves_nothing() -> None:
    dialler, _ = pair()
    taken = dialler.head + dialler.seal(b"hello")
    fresh = Sealing(KEYS, bytes([2]) * 32, dials=False)
    with pytest.raises(BadRecord, match="edge-stranger"):
        fresh.feed(taken)
    assert not fresh.proved


@given(st.data())
def test_a_changed_record_breaks_the_connection(data: st.DataObject) -> None:
    dialler, acceptor = pair()
    record = bytearray(dialler.seal(b"INVITE"))
    record[data.draw(st.integers(4, len(record) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadRecord):
        acceptor.feed(bytes(record))


@pytest.mark.parametrize(
    ("dialling", "accepting"),
    [
        ({"k1": OLD}, {"k1": NEW}),
        ({"k2": NEW}, {"k1": OLD}),
    ],
    ids=["another key", "another key id"],
)
def test_a_key_that_is_not_ours_proves_nothing(dialling: dict[str, bytes], accepting: dict[str, bytes]) -> None:
    dialler = Sealing(dialling, bytes(32), dials=True)
    acceptor = Sealing(accepting, bytes(32), dials=False)
    dialler.feed(acceptor.head)
    with pytest.raises(BadRecord, match="edge-stranger"):
        acceptor.feed(dialler.head + dialler.seal(b"hello"))


@pytest.mark.parametrize(
    ("dialling", "accepting"),
    [
        ({"k2": NEW, "k1": OLD}, {"k1": OLD, "k2": NEW}),
        ({"k1": OLD, "k2": NEW}, {"k2": NEW, "k1": OLD}),
        ({"k1": OLD}, {"k2": NEW, "k1": OLD}),
    ],
    ids=["new dials", "old dials", "old has one key"],
)
def test_the_first_key_signs_and_all_verify(dialling: dict[str, bytes], accepting: dict[str, bytes]) -> None:
    dialler, acceptor = pair(dialling, accepting)
    assert acceptor.feed(dialler.seal(b"hello")) == [b"hello"]
    assert dialler.feed(acceptor.seal(b"hello")) == [b"hello"]


def test_an_acceptor_of_another_version_is_left() -> None:
    dialler = Sealing(KEYS, bytes(32), dials=True)
    with pytest.raises(BadRecord, match="edge-stranger"):
        dialler.feed(b"SIP/2.0 400 Bad Request\r\n\r\n".ljust(HEAD, b"x"))


def test_before_the_proof_no_more_than_a_hello_is_held() -> None:
    dialler, acceptor = pair()
    with pytest.raises(BadRecord, match="edge-record-too-long"):
        acceptor.feed(dialler.seal(bytes(HELLO + 1)))


def test_a_record_above_the_bound_is_not_held() -> None:
    dialler, acceptor = pair()
    acceptor.feed(dialler.seal(b"hello"))
    assert acceptor.feed(dialler.seal(bytes(RECORD))) == [bytes(RECORD)]
    with pytest.raises(BadRecord, match="edge-record-too-long"):
        acceptor.feed(dialler.seal(bytes(RECORD + 1))[:4])


def test_nothing_is_sealed_before_the_other_side_has_spoken() -> None:
    with pytest.raises(RuntimeError):
        Sealing(KEYS, bytes(32), dials=True).seal(b"hello")
    assert len(Sealing(KEYS, bytes(32), dials=False).head) == HEAD
    assert Sealing(KEYS, bytes(32), dials=False).head.startswith(VERSION)


def test_no_key_shows_in_a_repr() -> None:
    assert OLD.hex() not in repr(pair()[0])
    assert repr(OLD) not in repr(vars(pair()[0])["_sealer"])
