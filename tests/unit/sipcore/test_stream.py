"""sipcore.parser: streams."""

from hypothesis import given
from hypothesis import strategies as st

from sipcore.errors import ParseError
from sipcore.message import Request
from sipcore.parser import DEFAULT_LIMITS, KEEPALIVE, Item, Limits, StreamParser


def message(number: int, body: bytes = b"", extra: str = "") -> bytes:
    head = (
        f"MESSAGE sip:bob@example.test SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK{number}\r\n"
        f"From: <sip:a@b>;tag=1\r\nTo: <sip:bob@example.test>\r\nCall-ID: c{number}\r\nCSeq: {number} MESSAGE\r\n"
        f"{extra}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def bad(number: int) -> bytes:
    """A message whose framing is right and whose CSeq is not."""
    return message(number, b"body").replace(b" MESSAGE\r\n", b" INVITE\r\n")


def told(item: Item) -> object:
    if isinstance(item, ParseError):
        return item.status, item.name, None if item.message is None else item.message.encode()
    return item if item is KEEPALIVE else item.encode()


def cut(data: bytes, cuts: list[int], limits: Limits = DEFAULT_LIMITS) -> tuple[list[object], bool, bool, bool]:
    """What a stream gives that arrives in these segments; then whether it is closed, and a part is held.

    Last, whether there was a keep-alive: those of one segment are one.
    """
    stream = StreamParser(limits)
    places = sorted({min(c, len(data)) for c in cuts})
    items = []
    for start, stop in zip([0, *places], [*places, len(data)], strict=True):
        items += [told(item) for item in stream.feed(data[start:stop])]
    return [item for item in items if item is not KEEPALIVE], stream.closed, stream.pending, KEEPALIVE in items


PIECES = st.sampled_from(
    [
        message(1),
        message(2, b"v=0\r\n\r\nx"),
        message(3, b"\r\n\r\n\r\n"),
        message(4, extra="Subject: a\r\n  folded\r\n"),
        bad(5),
        b"\r\n",
        b"\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"\r",
        b"\n",
        b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"SIP/2.0 999 No\r\nContent-Length: 0\r\n\r\n",
        message(6).replace(b"Content-Length: 0\r\n", b""),
        message(7).replace(b"Content-Length: 0", b"Content-Length: -1"),
        message(8).replace(b"Content-Length: 0", b"Content-Length: 100000"),
        message(9, b"half")[:-2],
        b"\x16\x03\x01\x02\x00garbage\r\n\r\n",
        b"x" * 700,
    ]
)


@given(st.lists(PIECES, max_size=8), st.lists(st.integers(0, 3000), max_size=30))
def test_t09_any_cutting_of_a_stream_gives_the_same_items(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    limits = Limits(message=600)
    assert cut(data, cuts, limits) == cut(data, [], limits)


@given(st.lists(PIECES, max_size=4))
def test_t09_an_octet_at_a_time_gives_the_same_items(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assert cut(data, list(range(len(data)))) == cut(data, [])


def test_t09_messages_come_one_after_the_other_with_their_bodies() -> None:
    bodies = [b"", b"\r\n\r\n", b"v=0\r\n", b"\xff\x00"]
    data = b"".join(message(n, body) for n, body in enumerate(bodies))
    items = StreamParser().feed(data)
    assert [item.body for item in items if isinstance(item, Request)] == bodies


def test_t10_two_line_breaks_between_messages_are_a_keepalive_and_one_is_nothing() -> None:
    stream = StreamParser()
    assert stream.feed(b"\r\n\r\n") == [KEEPALIVE]
    assert stream.feed(b"\r\n") == []
    assert not stream.pending
    assert stream.feed(b"\r") == []
    assert stream.feed(b"\n") == [KEEPALIVE]
    items = stream.feed(b"\r\n" + message(1) + b"\r\n\r\n" + message(2))
    assert [type(item) for item in items] == [Request, type(KEEPALIVE), Request]
    assert not stream.closed


def test_t10_keepalives_of_one_segment_are_one() -> None:
    stream = StreamParser()
    assert stream.feed(b"\r\n\r\n" * 10_000) == [KEEPALIVE]
    assert stream.feed(b"\r\n" * 3 + message(1) + b"\r\n" * 4)[::2] == [KEEPALIVE]
    assert stream.feed(b"\r\n\r") == []
    assert stream.feed(b"\n") == [KEEPALIVE]


@given(st.lists(PIECES, max_size=8), st.integers(1, 5))
def test_t09_a_bound_for_each_call_changes_nothing_but_when(pieces: list[bytes], most: int) -> None:
    data, limits = b"".join(pieces), Limits(message=600)
    stream, items = StreamParser(limits), []
    while True:
        some = stream.feed(b"" if items or stream.spent else data, most)
        items += [some]
        if not stream.more:
            break
    assert all(len(some) <= most for some in items)
    got = [told(item) for some in items for item in some if item is not KEEPALIVE]
    assert (got, stream.closed, stream.pending) == cut(data, [], limits)[:3]


def test_a_long_message_costs_more_of_a_turn_than_a_short_one() -> None:
    stream = StreamParser()
    items = stream.feed(message(1, bytes(20_000)) + message(2) + message(3), 4)
    assert (len(items), stream.more, stream.spent >= 20) == (1, True, True)
    assert (len(stream.feed(b"", 4)), stream.more, stream.spent) == (2, False, 2)
    assert stream.feed(message(4), 0) == []
    assert stream.more
    assert len(stream.feed(b"", 1)) == 1


def test_p12_no_content_length_is_400_and_closes() -> None:
    stream = StreamParser()
    (error,) = stream.feed(message(1).replace(b"Content-Length: 0\r\n", b"") + message(2))
    assert isinstance(error, ParseError)
    assert (error.status, error.name) == (400, "missing-content-length")
    assert error.message is not None
    assert stream.closed
    assert stream.feed(message(3)) == []


def test_an_error_inside_of_a_whole_message_does_not_end_the_stream() -> None:
    stream = StreamParser()
    first, second = stream.feed(bad(1) + message(2))
    assert isinstance(first, ParseError)
    assert (first.status, first.name) == (400, "bad-cseq")
    assert isinstance(second, Request)
    assert not stream.closed


def test_t12_a_part_of_a_message_is_pending() -> None:
    stream = StreamParser()
    data = message(1, b"body")
    for octet in data[:-1]:
        assert stream.feed(bytes([octet])) == []
        assert stream.pending
    assert len(stream.feed(data[-1:])) == 1
    assert not stream.pending


def test_p25_a_message_over_the_limit_is_513_and_closes_with_nothing_held() -> None:
    limit = DEFAULT_LIMITS.message
    declared = StreamParser()
    (error,) = declared.feed(message(1).replace(b"Content-Length: 0", f"Content-Length: {limit}".encode()))
    assert isinstance(error, ParseError)
    assert (error.status, error.name) == (513, "message-too-large")
    assert error.message is not None
    assert declared.closed
    endless = StreamParser()
    items: list[Item] = endless.feed(b"REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/TCP h\r\n")
    fed = 0
    while not endless.closed:
        items += endless.feed(b"X: " + b"y" * 1000 + b"\r\n")
        fed += 1005
    assert fed <= limit + 1005
    (error,) = items
    assert isinstance(error, ParseError)
    assert (error.status, error.name) == (513, "message-too-large")
    assert not endless.pending
    assert not endless._buffer


def test_p25_a_message_of_just_the_limit_passes() -> None:
    limit = DEFAULT_LIMITS.message
    room = limit - len(message(1)) - 4  # "Content-Length: 65xxx" has four digits more
    for size, closed in ((room, False), (room + 1, True)):
        stream = StreamParser()
        assert len(stream.feed(message(1, b"x" * size))) == 1
        assert stream.closed is closed
