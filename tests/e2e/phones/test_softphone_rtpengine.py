"""A real browser and a phone that speaks plain RTP hear each other through a real rtpengine (CHECKLIST N17).

There is no SIP here: what `edge.core.media.commands` asks for is tried on those who must understand the answer.
"""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright

from edge.core.actions import Media
from edge.core.media.commands import Kind, answer, delete, offer, rewritten
from edge.outside.rtpengine import Reply, Rtpengine
from ramal.processes import PackageMissing, find
from tests.e2e.phones.browser import ALLOWED, FLAGS
from tests.kit.rtpengine import ADDRESS, RtpengineServer, start_rtpengine

pytestmark = pytest.mark.e2e

CONNECTION = """
async () => {
  window.connection = new RTCPeerConnection();
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  for (const track of stream.getTracks()) connection.addTrack(track, stream);
  window.whole = async () => {
    if (connection.iceGatheringState !== "complete") {
      await new Promise((done) => connection.addEventListener("icegatheringstatechange",
        () => connection.iceGatheringState === "complete" && done()));
    }
    return connection.localDescription.sdp;
  };
  window.received = async () => {
    for (const report of (await connection.getStats()).values()) {
      if (report.type === "inbound-rtp") return report.bytesReceived;
    }
    return 0;
  };
}
"""
OFFER = "async () => { await connection.setLocalDescription(await connection.createOffer()); return whole(); }"
TAKE_ANSWER = "(sdp) => connection.setRemoteDescription({ type: 'answer', sdp })"
ANSWER = """
async (sdp) => {
  await connection.setRemoteDescription({ type: "offer", sdp });
  await connection.setLocalDescription(await connection.createAnswer());
  return whole();
}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtpengineServer]:
    try:
        started = start_rtpengine(tmp_path_factory.mktemp("rtpengine"))
    except PackageMissing as error:
        pytest.fail(f"{error} (`make test` does it, as root)", pytrace=False)
    yield started
    started.stop()


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    (tmp_path / "empty.html").write_text("<!doctype html><title>browser</title>")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find("chromium", "chromium"), args=[*FLAGS, ALLOWED])
        opened = await browser.new_page()
        await opened.goto((tmp_path / "empty.html").as_uri())
        await opened.evaluate(CONNECTION)
        yield opened
        await browser.close()


class Asking:
    """An Rtpengine whose answer is awaited."""

    def __init__(self, server: RtpengineServer) -> None:
        self.rtpengine = Rtpengine([server.name], self._relayed)
        self._answer: asyncio.Future[Reply | None] = asyncio.Future()

    def _relayed(self, id_: int, reply: Reply | None) -> None:
        if not self._answer.done():  # nobody waits for the reply to a delete
            self._answer.set_result(reply)

    async def sdp(self, command: dict[str, object]) -> bytes:
        self._answer = asyncio.Future()
        self.rtpengine.media([Media(1, command)])
        sdp = rewritten(await self._answer)
        assert sdp is not None, self._answer
        return sdp


@pytest.fixture
async def asks(server: RtpengineServer) -> AsyncIterator[Asking]:
    asking = Asking(server)
    await asking.rtpengine.start()
    yield asking
    await asking.rtpengine.stop()


class Phone(asyncio.DatagramProtocol):
    """A desk phone's sound: PCMU both ways, one packet in 20 ms."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None
        self._speaking: asyncio.Task[None] | None = None

    async def open(self) -> bytes:
        """Binds; returns its SDP."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=(ADDRESS, 0), family=socket.AF_INET
        )
        port = self._transport.get_extra_info("sockname")[1]
        return (
            f"v=0\r\no=- 1 1 IN IP4 {ADDRESS}\r\ns=-\r\nc=IN IP4 {ADDRESS}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
        ).encode()

    def speak(self, to: bytes) -> None:
        """Sends to where this SDP says, for ever."""
        line = next(line for line in to.splitlines() if line.startswith(b"m=audio "))
        self._speaking = asyncio.create_task(self._speak(int(line.split()[1])))

    async def _speak(self, port: int) -> None:
        assert self._transport
        for number in itertools.count(1):
            header = b"\x80\x00" + number.to_bytes(2, "big") + (number * 160).to_bytes(4, "big") + b"here"
            self._transport.sendto(header + b"\x7f" * 160, (ADDRESS, port))
            await asyncio.sleep(0.02)

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data[1] & 0x7F == 0 and len(data) == 172:
            self.heard.set()

    async def close(self) -> None:
        if self._speaking:
            self._speaking.cancel()
            await asyncio.gather(self._speaking, return_exceptions=True)
        if self._transport:
            self._transport.close()


async def both_hear(page: Page, phone: Phone) -> None:
    async with asyncio.timeout(20):
        await phone.heard.wait()
    await page.wait_for_function("async () => (await received()) > 1000", timeout=20_000)


async def test_n17_a_browser_calls_a_phone(page: Page, asks: Asking, server: RtpengineServer) -> None:
    phone = Phone()
    its_answer = await phone.open()
    to_phone = await asks.sdp(offer("b1", "a", "z1", (await page.evaluate(OFFER)).encode(), Kind.WEBRTC, Kind.RTP))
    assert b" RTP/AVP " in to_phone
    to_browser = await asks.sdp(answer("b1", "a", "z1", "t", its_answer, Kind.WEBRTC, Kind.RTP))
    await page.evaluate(TAKE_ANSWER, to_browser.decode())
    phone.speak(to_phone)
    await both_hear(page, phone)
    # A re-INVITE of the phone (say, back from hold) is an offer to the browser, and the media goes on.
    again = await asks.sdp(offer("b1", "t", "", its_answer, Kind.RTP, Kind.WEBRTC, "a"))
    of_browser = await page.evaluate(ANSWER, again.decode())
    to_phone = await asks.sdp(answer("b1", "t", "", "a", of_browser.encode(), Kind.RTP, Kind.WEBRTC))
    assert b" RTP/AVP " in to_phone
    phone.heard.clear()
    await both_hear(page, phone)
    asks.rtpengine.media([Media(0, delete("b1", "a"))])
    await phone.close()


async def test_n17_a_phone_calls_a_browser_and_a_phone_of_one_user(
    page: Page, asks: Asking, server: RtpengineServer
) -> None:
    caller, other = Phone(), Phone()
    its_offer, _ = await caller.open(), await other.open()
    to_browser = await asks.sdp(offer("b2", "a", "z1", its_offer, Kind.RTP, Kind.WEBRTC))
    to_other = await asks.sdp(offer("b2", "a", "z2", its_offer, Kind.RTP, Kind.RTP))
    assert b" RTP/AVP " in to_other
    of_browser = await page.evaluate(ANSWER, to_browser.decode())
    to_caller = await asks.sdp(answer("b2", "a", "z1", "t", of_browser.encode(), Kind.RTP, Kind.WEBRTC))
    asks.rtpengine.media([Media(0, delete("b2", "a", "z2"))])
    caller.speak(to_caller)
    await both_hear(page, caller)
    assert server.calls() == [b"b2"]
    asks.rtpengine.media([Media(0, delete("b2", "a", "z1"))])
    await caller.close()
    await other.close()
