"""The ng protocol with a real rtpengine, and with servers that lose, delay and refuse (CHECKLIST N17)."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from edge.core.actions import Media
from edge.core.media.commands import Kind, answer, delete, offer, rewritten
from edge.outside import bencode, rtpengine
from edge.outside.rtpengine import Reply, Rtpengine
from ramal.processes import PackageMissing, free_port
from runtime.errors import ConfigError
from runtime.metrics import drops
from tests.kit.rtpengine import RtpengineServer, start_rtpengine

pytestmark = pytest.mark.integration

PRINT = ":".join(["3A"] * 32)
BROWSER = f"""v=0
o=- 4611 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
m=audio 50000 UDP/TLS/RTP/SAVPF 111 0 126
c=IN IP4 127.0.0.1
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1 1 udp 2113937151 127.0.0.1 50000 typ host generation 0
a=ice-ufrag:abcd
a=ice-pwd:abcdefghijklmnopqrstuvwx
a=fingerprint:sha-256 {PRINT}
a=setup:actpass
a=mid:0
a=sendrecv
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=rtpmap:0 PCMU/8000
a=rtpmap:126 telephone-event/8000
""".replace("\n", "\r\n").encode()
BROWSERS_ANSWER = BROWSER.replace(b"a=setup:actpass", b"a=setup:active").replace(b"111 0 126", b"0 126")
PHONE_PORT = 6000
PHONE = f"""v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
m=audio {PHONE_PORT} RTP/AVP 0 126
a=rtpmap:0 PCMU/8000
a=rtpmap:126 telephone-event/8000
a=sendrecv
""".replace("\n", "\r\n").encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtpengineServer]:
    try:
        started = start_rtpengine(tmp_path_factory.mktemp("rtpengine"))
    except PackageMissing as error:
        pytest.fail(f"{error} (`make test` does it, as root)", pytrace=False)
    yield started
    started.stop()


class Asking:
    """An Rtpengine whose replies can be awaited."""

    def __init__(self, *servers: str) -> None:
        self.rtpengine = Rtpengine(servers, self._relayed)
        self._waiting: dict[int, asyncio.Future[Reply | None]] = {}

    def _relayed(self, id_: int, reply: Reply | None) -> None:
        self._waiting[id_].set_result(reply)

    def sends(self, command: dict[str, object]) -> "asyncio.Future[Reply | None]":
        id_ = len(self._waiting)
        self._waiting[id_] = asyncio.get_running_loop().create_future()
        self.rtpengine.media([Media(id_, command)])
        return self._waiting[id_]

    async def sdp(self, command: dict[str, object]) -> str:
        reply = await self.sends(command)
        sdp = rewritten(reply)
        assert sdp is not None, reply
        return sdp.decode()


@contextlib.asynccontextmanager
async def asking(*servers: str) -> AsyncIterator[Asking]:
    asks = Asking(*servers)
    await asks.rtpengine.start()
    try:
        yield asks
    finally:
        await asks.rtpengine.stop()


def port(sdp: str) -> int:
    found = re.search(r"^m=audio (\d+) ", sdp, re.MULTILINE)
    assert found
    return int(found[1])


def is_for_a_phone(sdp: str) -> bool:
    foreign = ("candidate:", "ice-", "fingerprint:", "setup:", "crypto:", "rtcp-mux")
    return " RTP/AVP " in sdp and not any(f"\na={line}" in sdp for line in foreign)


def is_for_a_browser(sdp: str) -> bool:
    lines = ("candidate:", "ice-ufrag:", "ice-pwd:", "fingerprint:", "setup:", "mid:", "rtcp-mux")
    return " UDP/TLS/RTP/SAVPF " in sdp and "a=crypto" not in sdp and all(f"\na={line}" in sdp for line in lines)


# --- the real daemon -----------------------------------------------------------------


async def test_n17_a_browser_calls_a_phone_and_both_see_what_they_speak(server: RtpengineServer) -> None:
    async with asking(server.name) as asks:
        to_phone = await asks.sdp(offer("c1", "a", "z1", BROWSER, Kind.WEBRTC, Kind.RTP))
        to_browser = await asks.sdp(answer("c1", "a", "z1", "t", PHONE, Kind.WEBRTC, Kind.RTP))
        assert is_for_a_phone(to_phone)
        assert is_for_a_browser(to_browser)
        assert "a=setup:active" in to_browser
        again = await asks.sdp(offer("c1", "a", "", BROWSER, Kind.WEBRTC, Kind.RTP, "t"))
        assert is_for_a_phone(again)
        assert port(again) == port(to_phone)
        back = await asks.sdp(offer("c1", "t", "", PHONE, Kind.RTP, Kind.WEBRTC, "a"))
        assert is_for_a_browser(back)
        assert is_for_a_phone(await asks.sdp(answer("c1", "t", "", "a", BROWSERS_ANSWER, Kind.RTP, Kind.WEBRTC)))
        await asks.sends(delete("c1", "a", to_tag="t"))
    assert server.calls() == []


async def test_n17_a_phone_calls_a_browser_and_both_see_what_they_speak(server: RtpengineServer) -> None:
    async with asking(server.name) as asks:
        assert is_for_a_browser(await asks.sdp(offer("c2", "a", "z1", PHONE, Kind.RTP, Kind.WEBRTC)))
        # The same answer in a 183 and in the 200.
        for _ in range(2):
            early = await asks.sdp(answer("c2", "a", "z1", "t", BROWSERS_ANSWER, Kind.RTP, Kind.WEBRTC))
            assert is_for_a_phone(early)
        await asks.sends(delete("c2", "a", to_tag="t"))
    assert server.calls() == []


async def test_a_savp_leg_gets_keys_and_no_suite_without_encryption(server: RtpengineServer) -> None:
    async with asking(server.name) as asks:
        sdp = await asks.sdp(offer("c3", "a", "z1", BROWSER, Kind.WEBRTC, Kind.SAVP))
        assert " RTP/SAVP " in sdp
        assert "AES_CM_128_HMAC_SHA1_80 inline:" in sdp
        assert "NULL" not in sdp
        assert "a=fingerprint" not in sdp
        await asks.sends(delete("c3", "a"))


async def test_an_offer_in_the_2xx_is_answered_in_the_ack(server: RtpengineServer) -> None:
    async with asking(server.name) as asks:
        # The INVITE had no SDP: the callee (tag t) offers, the caller (tag a) answers.
        assert is_for_a_browser(await asks.sdp(offer("c4", "t", "", PHONE, Kind.RTP, Kind.WEBRTC, "a")))
        assert is_for_a_phone(await asks.sdp(answer("c4", "t", "", "a", BROWSERS_ANSWER, Kind.RTP, Kind.WEBRTC)))
        await asks.sends(delete("c4", "a", to_tag="t"))
    assert server.calls() == []


async def test_n17_a_fork_has_an_offer_per_branch_and_each_ends_alone(server: RtpengineServer) -> None:
    async with asking(server.name) as asks:
        to_browser = await asks.sdp(offer("c5", "a", "z1", PHONE, Kind.RTP, Kind.WEBRTC))
        to_phone = await asks.sdp(offer("c5", "a", "z2", PHONE, Kind.RTP, Kind.RTP))
        assert is_for_a_browser(to_browser)
        assert is_for_a_phone(to_phone)
        assert port(to_browser) != port(to_phone)
        # The browser, which was asked first, answers; the phone's branch is cancelled.
        assert is_for_a_phone(await asks.sdp(answer("c5", "a", "z1", "t", BROWSERS_ANSWER, Kind.RTP, Kind.WEBRTC)))
        await asks.sends(delete("c5", "a", "z2"))
        assert server.calls() == [b"c5"]
        assert is_for_a_browser(await asks.sdp(offer("c5", "a", "", PHONE, Kind.RTP, Kind.WEBRTC, "t")))
        await asks.sends(delete("c5", "a", "z1"))
    assert server.calls() == []


async def test_n17_each_branch_that_nobody_answered_is_freed_and_with_the_last_the_call(
    server: RtpengineServer,
) -> None:
    async with asking(server.name) as asks:
        for branch in ("z1", "z2", "z3"):
            await asks.sdp(offer("c6", "a", branch, PHONE, Kind.RTP, Kind.WEBRTC))
        for branch in ("z1", "z2", "z3"):
            assert server.calls() == [b"c6"]
            await asks.sends(delete("c6", "a", branch))
    assert server.calls() == []


async def test_n17_of_two_that_answered_one_invite_the_first_that_ends_leaves_the_other(
    server: RtpengineServer,
) -> None:
    async with asking(server.name) as asks:
        for branch in ("z1", "z2"):
            await asks.sdp(offer("c7", "a", branch, PHONE, Kind.RTP, Kind.WEBRTC))
        for branch, tag in (("z1", "t1"), ("z2", "t2")):
            await asks.sdp(answer("c7", "a", branch, tag, BROWSERS_ANSWER, Kind.RTP, Kind.WEBRTC))
        await asks.sends(delete("c7", "a", to_tag="t1"))
        assert server.calls() == [b"c7"]
        assert is_for_a_browser(await asks.sdp(offer("c7", "a", "", PHONE, Kind.RTP, Kind.WEBRTC, "t2")))
        assert is_for_a_phone(await asks.sdp(answer("c7", "a", "", "t2", BROWSERS_ANSWER, Kind.RTP, Kind.WEBRTC)))
        await asks.sends(delete("c7", "a", to_tag="t2"))
    assert server.calls() == []


async def test_n17_octets_of_media_pass_both_ways_after_a_losing_branch_is_deleted(server: RtpengineServer) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as left,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as right,
    ):
        for phone in (left, right):
            phone.bind(("127.0.0.1", 0))
            phone.setblocking(False)

        def sdp(phone: socket.socket) -> bytes:
            return PHONE.replace(b"6000", str(phone.getsockname()[1]).encode())

        async with asking(server.name) as asks:
            to_right = port(await asks.sdp(offer("c7", "a", "z1", sdp(left), Kind.RTP, Kind.RTP)))
            await asks.sdp(offer("c7", "a", "z2", sdp(left), Kind.RTP, Kind.WEBRTC))
            to_left = port(await asks.sdp(answer("c7", "a", "z1", "t", sdp(right), Kind.RTP, Kind.RTP)))
            await asks.sends(delete("c7", "a", "z2"))
            await _heard(left, to_left, right)
            await _heard(right, to_right, left)
            await asks.sends(delete("c7", "a"))


async def _heard(speaker: socket.socket, port: int, listener: socket.socket) -> None:
    """Sends RTP until one packet arrives."""
    loop = asyncio.get_running_loop()
    packet = bytes([0x80, 0, 0, 1, 0, 0, 0, 160, 0, 0, 0, speaker.getsockname()[1] % 256]) + b"\x7f" * 160
    async with asyncio.timeout(10):
        while True:
            speaker.sendto(packet, ("127.0.0.1", port))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    heard = await loop.sock_recv(listener, 2000)
                    assert heard[12:] == packet[12:]
                    return


async def test_what_is_no_sdp_is_refused_and_counted(server: RtpengineServer) -> None:
    before = drops("media-refused")
    async with asking(server.name) as asks:
        reply = await asks.sends(offer("c8", "a", "z1", b"\xff\x00 not SDP", Kind.RTP, Kind.RTP))
        assert rewritten(reply) is None
        await asks.sends(delete("c8", "a"))
    assert drops("media-refused") > before


async def test_calls_go_to_the_server_that_is_left_when_one_ends(tmp_path: Any) -> None:
    first, second = start_rtpengine(tmp_path / "1"), start_rtpengine(tmp_path / "2")
    try:
        async with asking(first.name, second.name) as asks:
            names = [f"call-{number}" for number in range(20)]
            for name in names:
                await asks.sdp(offer(name, "a", "z1", PHONE, Kind.RTP, Kind.RTP))
            both = [first.calls(), second.calls()]
            assert all(both)
            assert sorted(both[0] + both[1]) == sorted(name.encode() for name in names)  # type: ignore[operator]
            first.stop()
            for name in names:
                await asks.sdp(offer(name + "x", "a", "z1", PHONE, Kind.RTP, Kind.RTP))
    finally:
        first.stop()
        second.stop()


# --- servers that are not well ------------------------------------------------------------


class Stub(asyncio.DatagramProtocol):
    """A server that answers pings, and other commands as it is told."""

    def __init__(self, reply: Callable[[int, bytes], bytes | None]) -> None:
        self.commands: list[bytes] = []
        self.pinged = asyncio.Event()
        self._reply = reply
        self._transport: asyncio.DatagramTransport | None = None

    async def serve(self) -> str:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return f"127.0.0.1:{self._transport.get_extra_info('sockname')[1]}"

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        assert self._transport
        cookie, _, command = data.partition(b" ")
        reply: bytes | None = bencode.encode({"result": "pong"})
        if command == bencode.encode({"command": "ping"}):
            self.pinged.set()
        else:
            self.commands.append(data)
            reply = self._reply(len(self.commands), command)
        if reply is not None:
            self._transport.sendto(cookie + b" " + reply, addr)

    def close(self) -> None:
        assert self._transport
        self._transport.close()


OK = bencode.encode({"result": "ok", "sdp": "v=0"})


@contextlib.asynccontextmanager
async def stub(reply: Callable[[int, bytes], bytes | None]) -> AsyncIterator[tuple[Stub, Asking]]:
    server = Stub(reply)
    name = await server.serve()
    async with asking(name) as asks:
        yield server, asks
    server.close()


async def test_a_lost_command_is_sent_again_with_the_same_cookie() -> None:
    async with stub(lambda count, _: OK if count == 3 else None) as (server, asks):
        assert rewritten(await asks.sends(delete("c", "a"))) == b"v=0"
        assert len(server.commands) == 3
        assert len(set(server.commands)) == 1


async def test_a_command_without_an_answer_ends_at_its_deadline() -> None:
    before = drops("media-timeout")
    async with stub(lambda *_: None) as (server, asks):
        replies = await asyncio.gather(*(asks.sends(delete(f"c{number}", "a")) for number in range(5)))
        assert replies == [None] * 5
        assert 5 < len(server.commands) <= 5 * rtpengine.DEADLINE / rtpengine.AGAIN
    assert drops("media-timeout") == before + 5


async def test_a_reply_that_cannot_be_read_is_dropped_and_the_command_sent_again() -> None:
    before = drops("media-reply-bad")
    async with stub(lambda count, _: b"d6:result" if count == 1 else b"5:hello" if count == 2 else OK) as (_, asks):
        assert rewritten(await asks.sends(delete("c", "a"))) == b"v=0"
    assert drops("media-reply-bad") == before + 2


async def test_a_reply_to_nothing_is_a_named_drop() -> None:
    before = drops("media-reply-unknown")
    async with stub(lambda *_: OK) as (server, asks):
        await asks.sends(delete("c", "a"))
        assert server.commands[0].partition(b" ")[0]
        asks.rtpengine._received(server.commands[0].partition(b" ")[0] + b" " + OK)
    assert drops("media-reply-unknown") == before + 1


async def test_more_commands_than_the_bound_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtpengine, "MOST", 3)
    before = drops("media-queue-full")
    async with stub(lambda *_: None) as (_, asks):
        waiting = [asks.sends(delete(f"c{number}", "a")) for number in range(4)]
        assert not any(each.done() for each in waiting)  # never from within `media`
        assert await waiting[3] is None
        assert not waiting[0].done()
        assert drops("media-queue-full") == before + 1
        await asyncio.gather(*waiting)


async def test_a_server_that_refuses_gives_what_waits_for_it_to_another() -> None:
    server = Stub(lambda *_: OK)
    alive, dead = await server.serve(), f"127.0.0.1:{free_port()}"
    async with asking(dead, alive) as asks:
        replies = await asyncio.gather(*(asks.sends(delete(f"c{number}", "a")) for number in range(20)))
        assert all(rewritten(reply) == b"v=0" for reply in replies)
    server.close()


async def test_with_no_server_the_answer_is_none_and_one_that_comes_back_is_used() -> None:
    port = free_port()
    async with asking(f"127.0.0.1:{port}") as asks:
        before = drops("media-away")
        while drops("media-away") == before:
            assert await asks.sends(delete("c", "a")) is None
        server = Stub(lambda *_: OK)
        loop = asyncio.get_running_loop()
        server._transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", port))
        async with asyncio.timeout(10):
            while rewritten(await asks.sends(delete("c", "a"))) is None:
                await server.pinged.wait()
        server.close()


def test_a_server_without_a_port_is_a_fault_of_the_settings() -> None:
    with pytest.raises(ConfigError, match="RAMAL_EDGE_RTPENGINE"):
        Rtpengine(["rtpengine.example.test"], lambda *_: None)
