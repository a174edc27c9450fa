"""Keys and strangers between edges, and bounds."""

import asyncio
import contextlib

import pytest

from edge.core import actions
from edge.mesh import frames
from edge.mesh.accepted import STRANGERS
from edge.mesh.channel import FRAME, UNSENT, size
from edge.mesh.sealing import HEAD, Sealing
from events.leases import EdgeLease
from runtime.log.embedded.log import EmbeddedLog
from runtime.metrics import drops
from tests.kit.peers import DEADLINE, KEYS, NEW, OLD, UDP, Begin, Edge, accepted, deaf, joined, send

# --- keys and strangers -----------------------------------------------------------------------------------------------


async def test_t19_an_edge_with_another_key_is_nobody(begin: Begin) -> None:
    before = drops("edge-stranger")
    a, b = await begin("a"), await begin("b", keys={"k1": NEW})
    await a.hears("lost", "b", "b1")
    await b.hears("lost", "a", "b1")
    assert (a.live, b.live) == ([], [])
    assert drops("edge-stranger") >= before + 2


async def test_edges_whose_keys_are_being_rotated_find_each_other(begin: Begin) -> None:
    a = await begin("a", keys={"k1": OLD, "k2": NEW})
    b = await begin("b", keys={"k2": NEW, "k1": OLD})
    c = await begin("c", keys={"k2": NEW, "k1": OLD})
    await joined(a, b, c)
    a.peers.send(send("b"))
    b.peers.send(send("a"))
    await b.hears("deliver", UDP, b"INVITE", 5062, "example.test")
    await a.hears("deliver", UDP, b"INVITE", 5062, "example.test")


async def heard_by_stranger(address: tuple[str, int], said: bytes) -> bytes:
    """All that a stranger hears until the connection is closed."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(said)
    async with asyncio.timeout(DEADLINE):
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n".ljust(200, b"x"),
        b"k1".ljust(8, b"\0") + bytes(32) + b"\xff\xff\xff\xff" + bytes(100),
        b"k1".ljust(8, b"\0") + bytes(32) + b"\0\0\x01\0" + bytes(256),
        b"k1".ljust(8, b"\0") + bytes(32) + b"\0\0\x01\0",
    ],
    ids=["silent", "another protocol", "huge", "no key", "unfinished"],
)
async def test_a_stranger_gets_nothing_and_is_closed(begin: Begin, said: bytes) -> None:
    a = await begin("a")
    heard = await heard_by_stranger(a.peers.address, said)
    assert len(heard) in (0, HEAD)
    assert not a.told
    assert not a.peers._accepted_by_us._strangers


async def test_one_who_repeats_what_an_edge_said_gets_nothing(begin: Begin, log: EmbeddedLog) -> None:
    b = await begin("b")
    taken = bytearray()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*b.peers.address)

        async def answers() -> None:
            while data := await there.read(65536):
                writer.write(data)

        answering = asyncio.create_task(answers())
        while data := await reader.read(65536):
            taken.extend(data)
            back.write(data)
        answering.cancel()
        back.close()
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    a = Edge(log, "a")
    await a.peers.start(("127.0.0.1", 0))
    port = server.sockets[0].getsockname()[1]
    a.peers.learn([EdgeLease("b", "b1", 5, {"edges": f"127.0.0.1:{port}"})], [])
    a.peers.send(send("b"))
    await b.hears("deliver", UDP, b"INVITE", 5062, "example.test")
    assert b"INVITE" not in taken
    heard = await heard_by_stranger(b.peers.address, bytes(taken))
    assert len(heard) in (0, HEAD)
    assert len(b.heard_of("deliver")) == 1
    await a.stop()
    server.close()


async def test_strangers_are_few_and_edges_come_in_all_the_same(begin: Begin) -> None:
    a = await begin("a")
    before = drops("edge-too-many-strangers")
    strangers = [await asyncio.open_connection(*a.peers.address) for _ in range(STRANGERS + 10)]
    assert len(a.peers._accepted_by_us._strangers) <= STRANGERS
    b = await begin("b")
    await joined(a, b)
    assert drops("edge-too-many-strangers") >= before + 10
    for _, writer in strangers:
        writer.close()


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_a_message_too_long_for_a_frame_is_told_as_503(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    before = drops("edge-frame-too-long")
    a.peers.send(send("b", bytes(FRAME + 1)))
    a.peers.forward(actions.Forward("b", "b1", UDP, bytes(FRAME + 1)))
    a.peers.seek(actions.Seek("s1", UDP, bytes(FRAME + 1)))
    await a.hears("unsent", "i1", 503)
    assert drops("edge-frame-too-long") == before + 3


async def test_more_than_one_record_of_frames_arrives_in_order(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    messages = [bytes([number]) * FRAME for number in range(10)]
    for message in messages:
        a.peers.send(send("b", message))
    await b.until(lambda: len(b.told) == 10)
    assert [each[2] for each in b.told] == messages


async def test_what_waits_for_an_edge_is_bounded_and_the_rest_told_as_503(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    deaf(b, "a")
    before = drops("edge-unsent-full")
    count = UNSENT // FRAME + 1
    for number in range(count):
        a.peers.send(send("b", bytes(FRAME), id_=f"i{number}"))
    a.peers.forward(actions.Forward("b", "b1", UDP, bytes(FRAME)))
    await a.hears("unsent", f"i{count - 1}", 503)
    assert drops("edge-unsent-full") >= before + 2
    link = a.link("b")
    assert link._queued <= UNSENT
    assert sum(map(size, link._unproved)) <= UNSENT


async def test_one_that_does_not_read_our_answers_is_closed(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    channel = accepted(b, "a")
    dialled = a.link("b")._channel
    assert dialled is not None
    assert dialled._transport is not None
    dialled._transport.pause_reading()
    before = drops("edge-unread")
    (number,) = b.peers._accepted_by_us._numbers.values()
    for _ in range(400):
        for answer in range(20):
            b.peers.failed(f"@{number}@{'i' * 2000}{answer}", 503)
        await asyncio.sleep(0)
        if not channel.open:
            break
    assert not channel.open
    assert drops("edge-unread") == before + 1


async def test_a_frame_that_is_no_question_is_dropped_by_name(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    before = drops("edge-frame-unexpected")
    channel = a.link("b")._channel
    assert channel is not None
    channel.write([frames.Pong(), frames.ClaimFrame("s", True)], 0)
    a.peers.send(send("b"))
    await b.hears("deliver", UDP, b"INVITE", 5062, "example.test")
    b_channel = accepted(b, "a")
    b_channel.write([frames.Ping(), frames.ClaimFrame("s1", True), frames.Unsent("i9", 430)], 0)
    await a.hears("unsent", "i9", 430)
    assert drops("edge-frame-unexpected") == before + 3


async def test_a_hello_that_cannot_be_read_closes_the_connection(begin: Begin) -> None:
    a = await begin("a")
    before = drops("edge-hello-unreadable")
    sealing = Sealing(KEYS, bytes(32), dials=True)
    reader, writer = await asyncio.open_connection(*a.peers.address)
    sealing.feed(await reader.readexactly(HEAD))
    writer.write(sealing.head + sealing.seal(b"what"))
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    assert drops("edge-hello-unreadable") == before + 1
    writer.close()
