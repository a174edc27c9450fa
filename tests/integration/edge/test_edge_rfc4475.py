"""The messages of RFC 4475 over the wire, on UDP and on TCP: what is answered, and what becomes of the connection."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.transport.connections import StreamLimits
from edge.transport.layer import StreamSettings, Transports
from edge.transport.tls import Certificates
from sipcore.errors import ParseError
from sipcore.message import Response
from sipcore.parser import StreamParser, parse_datagram
from tests.kit.edge import SETTINGS, core
from tests.kit.transport import DEADLINE

HERE = Path(__file__).parents[2] / "unit" / "rfc4475"
EXPECTED = {m["file"]: m for m in json.loads((HERE / "expected.json").read_text())["messages"]}
DOMAIN = "example.com"
"""Ours: most of the messages are for it."""

ANSWERS: dict[str, int] = {
    # Valid: REGISTERs are challenged, and so are the calls of our users; others may not call through us.
    **dict.fromkeys(("cparam01", "cparam02", "dblreq", "escnull", "regaut01", "regescrt"), 401),
    **dict.fromkeys(("esc02", "intmeth", "lwsdisp", "transports", "wsinv"), 407),
    **dict.fromkeys(("baddate", "esc01", "inv2543", "invut", "longreq", "sdp01", "semiuri"), 403),
    "mpart01": 403,  # its Route leads to another server on our host
    # Refused by the parser, or by a step of RFC 3261 section 16.3.
    **dict.fromkeys(
        ("badaspec", "badbranch", "baddn", "badinv01", "clerr", "escruri", "insuf", "ltgtruri", "lwsruri"), 400
    ),
    **dict.fromkeys(
        ("lwsstart", "mcl01", "mismatch01", "multi01", "ncl", "quotbal", "regbadct", "scalar02", "trws"), 400
    ),
    **dict.fromkeys(("novelsc", "unkscm"), 416),
    "badvers": 505,
    "bext01": 420,
    "mismatch02": 501,
    "unksm2": 400,
    "zeromf": 483,
    # Responses to nothing that we sent, and a request without a Via.
    **dict.fromkeys(("bcast", "bigcode", "noreason", "scalarlg", "unreason", "test"), 0),
}
ON_STREAMS: dict[str, tuple[int, ...]] = {
    "baddn": (),  # its head does not end
    "clerr": (),  # its body does not
    "dblreq": (401, 403),  # what is noise on UDP is a second message here
    "inv2543": (400,),  # it has no Content-Length
}
CLOSED = {
    *("badvers", "bigcode", "dblreq", "inv2543", "ltgtruri", "lwsruri", "lwsstart", "mcl01", "ncl", "test", "trws"),
    *("baddn", "clerr"),
}
"""Where the next message would begin is lost, or the message is never whole."""


def sentinel() -> bytes:
    """A request whose answer says that all before it has been taken."""
    return (
        f"OPTIONS sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bKend\r\nMax-Forwards: 70\r\n"
        f"From: <sip:x@{DOMAIN}>;tag=1\r\nTo: <sip:{DOMAIN}>\r\nCall-ID: the-end\r\nCSeq: 1 OPTIONS\r\n"
        "Accept: application/sdp\r\nUser-Agent: something that makes the request large enough for a whole answer\r\n"
        "Subject: nothing is amplified to a stranger, so the request has to be of a certain size\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


@pytest.fixture
async def edge() -> AsyncIterator[Transports]:
    own = core(SETTINGS, default_domain=DOMAIN, algorithms={DOMAIN: ("MD5",)}, challenges_per_second=1000.0)
    settings = StreamSettings(StreamLimits(100, 100, 0.3, 10.0), Certificates("", ""))
    edge = Transports(own, lambda publishes: None, settings, edge="edge-1", boot="b00t")
    await edge.start({"udp": [("127.0.0.1", 0)], "tcp": [("127.0.0.1", 0)]})
    yield edge
    await edge.stop()


def port(edge: Transports, transport: str) -> int:
    return edge.bound(transport)[0][1]


def repeats(answer: bytes, data: bytes) -> bool:
    """Whether an answer has the request's Call-ID and CSeq, as far as it has them."""
    request = answer_of = None
    try:
        request = parse_datagram(data)
    except ParseError as error:
        request = error.message
    try:
        answer_of = parse_datagram(answer)
    except ParseError as error:
        answer_of = error.message  # it repeats a Via that is outside the grammar
    assert request is not None
    assert isinstance(answer_of, Response)
    return all(answer_of.first(name) == request.first(name) for name in ("call-id", "cseq", "from"))


def status(answer: bytes) -> int:
    assert answer.startswith(b"SIP/2.0 ")
    return int(answer[8:11])


def test_every_message_has_its_verdict() -> None:
    assert set(ANSWERS) == {name.removesuffix(".dat") for name in EXPECTED}
    for name, answer in ANSWERS.items():
        message = EXPECTED[f"{name}.dat"]
        allowed = " ".join([message["proxy"], *message.get("also", ()), message.get("registrar", "")])
        assert message["proxy"] == "accept" or (str(answer) if answer else "drop") in allowed, name


async def test_p02_every_message_gets_its_answer_on_udp_at_the_port_that_its_via_names(edge: Transports) -> None:
    loop = asyncio.get_running_loop()
    host = f"127.45.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
    phones = {}
    for at in (5060, 5050):  # where a Via leads that has no port, and that of quotbal
        phones[at] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        phones[at].bind((host, at))
        phones[at].setblocking(False)
    wrong = []
    for name, expected in ANSWERS.items():
        data = (HERE / f"{name}.dat").read_bytes()
        for octets in (data, sentinel()):
            phones[5060].sendto(octets, ("127.0.0.1", port(edge, "udp")))
        answers: list[bytes] = []
        while not answers or b"the-end" not in answers[-1]:
            answers.append(await asyncio.wait_for(loop.sock_recv(phones[5060], 65535), DEADLINE))
        if name == "quotbal":
            answers.insert(0, await asyncio.wait_for(loop.sock_recv(phones[5050], 65535), DEADLINE))
        got = [status(answer) for answer in answers[:-1]]
        if got != [expected] * bool(expected) or not all(repeats(answer, data) for answer in answers[:-1]):
            wrong.append((name, expected, answers[:-1]))
    for phone in phones.values():
        phone.close()
    assert wrong == []


async def test_p02_every_message_gets_its_answer_on_tcp_and_only_lost_framing_closes(edge: Transports) -> None:
    async def told(name: str) -> tuple[list[int], bool]:
        """The statuses of the answers, and whether the connection was closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port(edge, "tcp"))
        writer.write((HERE / f"{name}.dat").read_bytes())
        if name not in ("baddn", "clerr"):
            writer.write(sentinel())
        answers = b""
        while b"the-end" not in answers and (octets := await asyncio.wait_for(reader.read(65535), DEADLINE)):
            answers += octets
        writer.close()
        lines = [line for line in answers.split(b"\r\n") if line.startswith(b"SIP/2.0 ")]
        closed = b"the-end" not in answers
        return [status(line) for line in lines][: None if closed else -1], closed

    wrong = []
    for name, on_udp in ANSWERS.items():
        expected = list(ON_STREAMS.get(name, (on_udp,) if on_udp else ())), name in CLOSED
        if (got := await told(name)) != expected:
            wrong.append((name, expected, got))
    assert wrong == []


async def test_an_ack_is_never_answered_whatever_is_wrong_with_it(edge: Transports) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port(edge, "tcp"))
    parser, answers = StreamParser(), []
    for name in (
        "badbranch",
        "badinv01",
        "badaspec",
        "escruri",
        "insuf",
        "mismatch01",
        "multi01",
        "quotbal",
        "scalar02",
    ):
        data = (HERE / f"{name}.dat").read_bytes()
        method = data.partition(b" ")[0]
        writer.write(data.replace(method + b" sip:", b"ACK sip:", 1).replace(b" " + method + b"\r\n", b" ACK\r\n"))
    writer.write(sentinel())
    while not answers:
        answers = parser.feed(await asyncio.wait_for(reader.read(65535), DEADLINE))
    writer.close()
    (answer,) = answers
    assert isinstance(answer, Response)
    assert answer.call_id == "the-end"
