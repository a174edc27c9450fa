"""WebSocket framing of the server's side (RFC 6455 section 5; CHECKLIST W03-W05, W10)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.transport.websocket_frames import (
    MESSAGE,
    BadFrame,
    FrameReader,
    Opcode,
    Status,
    WebSocketMessage,
    close_status,
    closing,
    frame,
    unmask,
)

KEY = b"\x11\x22\x33\x44"
ENOUGH = 10_000


def masked(opcode: int, data: bytes, *, fin: bool = True, reserved: int = 0) -> bytes:
    """A client's frame."""
    head = bytes(((0x80 if fin else 0) | reserved | opcode,))
    if len(data) < 126:
        head += bytes((0x80 | len(data),))
    elif len(data) < 65536:
        head += b"\xfe" + len(data).to_bytes(2, "big")
    else:
        head += b"\xff" + len(data).to_bytes(8, "big")
    return head + KEY + unmask(KEY, data)


def broken(octets: bytes, most: int = ENOUGH) -> tuple[str, Status]:
    _, fault = FrameReader().feed(octets, most)
    assert isinstance(fault, BadFrame)
    return fault.name, fault.status


@given(st.lists(st.binary(max_size=300), max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_w03_any_cutting_into_segments_and_fragments_gives_the_same_messages(
    bodies: list[bytes], cuts: list[int]
) -> None:
    octets, expected = b"", []
    for index, body in enumerate(bodies):
        middle = len(body) // 2
        if index % 2:
            octets += masked(Opcode.BINARY, body[:middle], fin=False) + masked(Opcode.PING, b"!")
            octets += masked(Opcode.CONTINUATION, body[middle:])
            expected += [WebSocketMessage(Opcode.PING, b"!"), WebSocketMessage(Opcode.BINARY, body)]
        else:
            octets += masked(Opcode.BINARY, body)
            expected.append(WebSocketMessage(Opcode.BINARY, body))
    reader, found, at = FrameReader(), [], 0
    for end in [*sorted(cuts), len(octets)]:
        messages, fault = reader.feed(octets[at:end], ENOUGH)
        assert fault is None
        found += messages
        at = max(at, end)
    assert found == expected
    assert not reader.pending


@given(st.binary(max_size=2000))
def test_any_octets_give_messages_or_a_named_fault(octets: bytes) -> None:
    messages, fault = FrameReader().feed(octets, ENOUGH)
    assert isinstance(messages, list)
    assert fault is None or fault.name.startswith("websocket-")


def test_w04_an_unmasked_frame_is_a_protocol_error_and_ours_are_never_masked() -> None:
    assert broken(frame(Opcode.TEXT, b"hello")) == ("websocket-unmasked", Status.PROTOCOL_ERROR)
    for size in (0, 125, 126, 65535, 65536):
        assert not frame(Opcode.TEXT, b"x" * size)[1] & 0x80
        assert frame(Opcode.BINARY, b"x" * size).endswith(b"x" * size)


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(masked(Opcode.PING, b"x" * 126), id="control frame above 125 octets"),
        pytest.param(masked(Opcode.PING, b"x", fin=False), id="fragmented control frame"),
        pytest.param(masked(Opcode.TEXT, b"x", reserved=0x40), id="reserved bit without an extension"),
        pytest.param(masked(0x3, b"x"), id="reserved opcode"),
        pytest.param(masked(Opcode.CONTINUATION, b"x"), id="continuation of nothing"),
        pytest.param(masked(Opcode.TEXT, b"x", fin=False) + masked(Opcode.TEXT, b"y"), id="message within a message"),
    ],
)
def test_w05_what_breaks_the_framing_is_a_protocol_error(octets: bytes) -> None:
    assert broken(octets) == ("websocket-bad-frame", Status.PROTOCOL_ERROR)


def test_w10_a_message_above_64_kib_is_too_big_before_it_has_come() -> None:
    whole = masked(Opcode.BINARY, b"x" * MESSAGE)
    assert FrameReader().feed(whole, ENOUGH)[1] is None
    announced = masked(Opcode.BINARY, b"x" * (MESSAGE + 1))[:20]
    assert broken(announced) == ("websocket-too-large", Status.TOO_BIG)
    parts = masked(Opcode.BINARY, b"x" * MESSAGE, fin=False) + masked(Opcode.CONTINUATION, b"x")
    assert broken(parts) == ("websocket-too-large", Status.TOO_BIG)
    assert broken(b"\x82\xff" + b"\xff" * 8) == ("websocket-too-large", Status.TOO_BIG)


def test_w10_more_frames_than_allowed_are_a_flood() -> None:
    reader = FrameReader()
    messages, fault = reader.feed(masked(Opcode.PING, b"") * 3, 3)
    assert (len(messages), fault) == (3, None)
    assert broken(masked(Opcode.PING, b"") * 4, 3) == ("websocket-frame-flood", Status.POLICY)


def test_text_that_is_not_utf8_closes_with_1007() -> None:
    assert broken(masked(Opcode.TEXT, b"\xff\xfe")) == ("websocket-not-utf8", Status.INVALID_PAYLOAD)
    assert FrameReader().feed(masked(Opcode.TEXT, "ü".encode()), ENOUGH)[0] == [
        WebSocketMessage(Opcode.TEXT, "ü".encode())
    ]


def test_a_close_is_answered_with_its_own_status_unless_that_breaks_the_rules() -> None:
    assert close_status(b"") is None
    assert close_status((1000).to_bytes(2, "big") + b"bye") == 1000
    assert close_status((4321).to_bytes(2, "big")) == 4321
    for bad in (b"\x03", (1005).to_bytes(2, "big"), (999).to_bytes(2, "big"), b"\x03\xe8\xff"):
        assert close_status(bad) == 1002
    assert closing(None) == b"\x88\x00"
    assert closing(1002) == b"\x88\x02\x03\xea"
