"""CHECKLIST P26: any bytes give messages or ParseErrors, nothing else, in time linear in their number.

RAMAL_FUZZ_CASES is the number of cases of each test (default 1,000; nightly 10**6).
"""

import contextlib
import functools
import importlib
import os
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.core import response
from edge.core.flow import Flow
from sipcore import address, digest, grammar, headers, nonce, parser, proxy, uri
from sipcore.digest import parse_credentials
from sipcore.errors import ParseError
from sipcore.message import Request, Response, respond, with_received
from sipcore.parser import DEFAULT_LIMITS, Item, StreamParser, parse_datagram
from sipcore.transaction import transaction_key
from sipcore.uri import aor, equal, parse_uri

# The form of a pattern has no public name.
constants = importlib.import_module("re._constants")
patterns = importlib.import_module("re._parser")

CASES = int(os.environ.get("RAMAL_FUZZ_CASES", "1000"))
CORPUS = [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "unit" / "rfc4475").glob("*.dat"))]
FRAGMENTS = [
    *(b"\r\n", b"\r", b"\n", b"\x00", b"\\", b'"', b"<", b">", b",", b";", b"=", b"@", b"%", b"%00", b"%0d%0a", b":"),
    *(b"?", b"\r\n ", b"\t", b"[", b"]", b"[::1]", b"*", b"\xff", b"\xc3\xa9", b"z9hG4bK", b";tag=1", b";branch="),
    *(b"SIP/2.0", b"Via: ", b"v:", b"Contact: ", b"To: ", b"Content-Length: ", b"-1", b"99999999999999999999", b"/"),
    *(b'Authorization: Digest username="', b"INVITE ", b"\r\n\r\n", b" ", b"0", b"'", b"~", b"\x7f", b"\x80", b"("),
    *(b"Digest ", b"\xe2\x80\xa8"),
]

short = settings(
    max_examples=CASES, deadline=None, derandomize=CASES <= 1000, suppress_health_check=list(HealthCheck), database=None
)


def use(item: Item) -> None:
    """Does with an item what an edge does; only a ParseError may come of it, and none of a checked message."""
    if isinstance(item, ParseError):
        assert item.status is None or 400 <= item.status <= 599
        assert item.reason.isascii()
        assert item.reason.isprintable()
        if isinstance(item.message, Request):
            answer(item.message, 400)
            refused(item.message)
            with contextlib.suppress(ParseError):
                transaction_key(item.message)
        elif item.message is not None:
            passed(item.message)
    elif isinstance(item, Request):
        assert item.via.branch == item.branch
        assert item.call_id
        assert item.cseq.number <= 2**32 - 1
        addresses([item.from_, item.to])
        transaction_key(item)
        answer(item, 200)
        passed(item)
        assert parse_datagram(item.encode()).encode() == item.encode()
    elif isinstance(item, Response):
        assert item.via.branch == item.branch
        proxy.without_top_via(item)
        passed(item)
        assert parse_datagram(item.encode()).encode() == item.encode()


def passed(item: Request | Response) -> None:
    """What is looked at, or only passes through, in any message; headers that nobody needs may be anything."""
    assert isinstance(item.vias, list)
    for row in item.rows:
        with contextlib.suppress(ParseError):  # too many
            item.values(row.name)
        parse_credentials(row.value)
    for read in (lambda: item.contacts, lambda: item.addresses("route"), lambda: item.addresses("path")):
        with contextlib.suppress(ParseError):
            addresses(read())
    for each in (lambda: item.from_, lambda: item.to, lambda: item.cseq, lambda: item.via):
        with contextlib.suppress(ParseError):
            each()
    if isinstance(item, Response):
        proxy.to_tag(item)
        proxy.is_of(item, "INVITE")
        proxy.unfit(item).encode()


def refused(request: Request) -> None:
    """The head of a refusal: one line for each row that it repeats."""
    flow = Flow("udp", "192.0.2.1", 5060, "198.51.100.7", 5060)
    with contextlib.suppress(ParseError):
        head = response.head(b"key", request, flow)
        assert head.count("\r") == head.count("\n") == len(head.split("\r\n")) - 1
        assert 0 <= response.reply_port(request, flow) <= 65_535


def addresses(read: list[address.Address]) -> None:
    """Does with name-addrs what an edge does."""
    for each in read:
        assert equal(each.parsed_uri, each.parsed_uri)
        each.params_without("expires")
        if each.parsed_uri.is_sip:
            assert aor(each.parsed_uri).isascii()


def answer(request: Request, status: int) -> None:
    """A response that a client reads as one response, whatever it had sent."""
    response = respond(with_received(request, "192.0.2.1", 5060), status, to_tag="x", headers=[("Allow", "REGISTER")])
    head, _, body = response.encode().partition(b"\r\n\r\n")
    assert body == b""
    assert len(head.split(b"\r\n")) == len(response.rows) + 2
    assert b"\r" not in head.replace(b"\r\n", b"")
    assert b"\n" not in head.replace(b"\r\n", b"")


def whole(data: bytes) -> None:
    """One datagram and one stream of the same bytes."""
    try:
        use(parse_datagram(data))
    except ParseError as error:
        use(error)
    stream = StreamParser()
    for item in stream.feed(data):
        use(item)
    assert len(stream._buffer) <= DEFAULT_LIMITS.message


@short
@given(st.binary(max_size=600))
def test_p26_any_bytes(data: bytes) -> None:
    whole(data)


@short
@given(st.data())
def test_p26_any_bytes_as_a_value_of_a_message(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(CORPUS))
    start = data.draw(st.integers(0, len(message)))
    stop = data.draw(st.integers(start, min(len(message), start + 40)))
    middle = data.draw(
        st.one_of(st.binary(max_size=40), st.lists(st.sampled_from(FRAGMENTS), max_size=6).map(b"".join))
    )
    whole(message[:start] + middle + message[stop:])


def mutated(chance: random.Random) -> bytes:
    """A message of the corpus with a few things cut, doubled, swapped or put in."""
    data = bytearray(chance.choice(CORPUS))
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data) + 1)
        length = chance.choice((1, 1, 2, 5, 20, 100))
        way = chance.randrange(5)
        if way == 0:
            del data[at : at + length]
        elif way == 1:
            data[at:at] = chance.choice(FRAGMENTS)
        elif way == 2:
            data[at:at] = data[at : at + length] * chance.choice((1, 2, 50))
        elif way == 3:
            data[at : at + 1] = bytes([chance.randrange(256)])
        else:
            other = chance.choice(CORPUS)
            start = chance.randrange(len(other))
            data[at:at] = other[start : start + length]
    return bytes(data)


def test_p26_mutations_of_the_torture_messages() -> None:
    for seed in range(CASES):
        data = mutated(random.Random(seed))
        try:
            whole(data)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {data!r}") from error


def test_t09_p26_mutations_cut_into_segments_give_the_same_items() -> None:
    def told(item: Item) -> Any:
        if isinstance(item, ParseError):
            return item.name, item.status
        return item.encode() if isinstance(item, Request) else repr(item)

    for seed in range(CASES):
        chance = random.Random(seed)
        data = mutated(chance) + mutated(chance)
        one, many = StreamParser(), StreamParser()
        expected = [told(item) for item in one.feed(data)]
        got = []
        at = 0
        while at < len(data):
            length = chance.choice((1, 2, 3, 50, 400))
            got += [told(item) for item in many.feed(data[at : at + length])]
            at += length
        assert got == expected, f"seed {seed}"


@short
@given(st.text(max_size=100))
def test_p26_any_text_as_a_uri_or_a_nonce(text: str) -> None:
    for each in (text, "sip:" + text, "sip:a@" + text):
        try:
            parsed = parse_uri(each)
        except ParseError:
            continue
        assert equal(parsed, parsed)
        assert equal(parse_uri(str(parsed)), parsed)
    nonce.check({"k1": b"x" * 16}, "realm", text, 0, 1)


# What has made parsers quadratic or worse: each unit repeated until the message is full.
REPEATED = [
    *("a: b\r\n", "x\r\n", "\r\n ", "\r\n\t\r\n ", ":", " ", "\t", "a", "\x00", "\\\x00", "\\", '"', '\\"', "<", ">"),
    *("<>", ",", '"a",', "<sip:a@b>,", "sip:a@b;x,", ";", ";a", ";a=", ';a="', ';a="b"', ";a=b;", "%", "%4", "%41"),
    *("@", "sip:", "a.", "[", "SIP/2.0/UDP h,", "SIP/2.0/UDP h;a;", "/", "1", "0", "a=b,", 'a="b",', "a = b , ", "="),
    *("?", "a=b&", "é", "\udcff", "::", "-"),
]
START = "REGISTER sip:a SIP/2.0\r\n"
NAMES = ("Via", "To", "Contact", "Call-ID", "CSeq", "X", "Content-Length")
OPENED = ("To: <sip:a@b>", 'To: "', "Via: SIP/2.0/UDP h", "Contact: <sip:a@b", "X")
PREFIXES = [
    *("", "REGISTER sip:", START, "SIP/2.0 200 "),
    *(f"{START}{name}: " for name in NAMES),
    *(START + opened for opened in OPENED),
]


def counted(work: Callable[[], object]) -> int:
    """How many lines of sipcore run: a measure of work that no other load disturbs."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        if "sipcore" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def read_all(data: bytes, text: str) -> None:
    """Everything that reads what a peer sent."""
    for read in (lambda: parse_datagram(data), lambda: parse_credentials(text), lambda: parse_uri(text)):
        with contextlib.suppress(ParseError):
            read()
    StreamParser().feed(data)


@pytest.mark.parametrize("unit", REPEATED, ids=ascii)
def test_p26_work_grows_no_faster_than_length(unit: str) -> None:
    for prefix in PREFIXES:
        counts = []
        for size in (500, 2000, 8000):
            filled = unit * (size // len(unit))
            end = "\r\n\r\n"
            data = (prefix + filled + end).encode("utf-8", "surrogateescape")
            counts.append(counted(functools.partial(read_all, data, "Digest " + filled)))
        # Four times the length is at most four times the work, with some to spare for what is the same for all.
        assert counts[1] <= 4 * counts[0] + 400, (prefix, counts)
        assert counts[2] <= 4 * counts[1] + 400, (prefix, counts)


def repetitions(form: Any) -> list[Any]:
    """The repetitions in a pattern that have no bound and can be gone back into."""
    found = []
    for op, argument in form:
        if op is constants.ATOMIC_GROUP and argument[-1][0] is constants.MAX_REPEAT:
            # It ends the group, which nothing goes back into: `(?>(?:…)*)` is `(?:…)*+`.
            *before, (_, (_, _, body)) = argument
            found += repetitions(before) + repetitions(body)
            continue
        if op in (constants.MAX_REPEAT, constants.MIN_REPEAT) and argument[1] > 300:
            found.append(argument)
        for part in argument if isinstance(argument, tuple | list) else [argument]:
            for inner in part if isinstance(part, list) else [part]:
                if isinstance(inner, patterns.SubPattern):
                    found += repetitions(inner)
    return found


def test_p26_no_pattern_can_go_back_into_a_repetition() -> None:
    """Work inside of one pattern cannot be counted, so its form bounds it: unbounded repetitions are possessive.

    Or they end an atomic group, which is the same.
    """
    found = {
        f"{module.__name__}.{name}": value
        for module in (address, digest, grammar, headers, nonce, parser, uri)
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern)
    }
    assert len(found) > 15
    for name, pattern in found.items():
        assert repetitions(patterns.parse(pattern.pattern, pattern.flags & ~re.UNICODE)) == [], name
    assert repetitions(patterns.parse(r"(?:a|(b*))"))
    assert repetitions(patterns.parse(r"(?>(?:a)*b)"))
    assert repetitions(patterns.parse(r"(?>a*(?:b)*)"))
    assert repetitions(patterns.parse(r"(?>(?:a|b*)*)"))
    assert not repetitions(patterns.parse(r"(?>(?:ab)*)c"))


def octet_by_octet(stream: StreamParser, data: bytes) -> None:
    for octet in data:
        stream.feed(bytes([octet]))


def test_p26_a_stream_that_comes_an_octet_at_a_time_costs_the_same_for_each() -> None:
    counts = []
    for size in (1000, 4000, 16000):
        data = b"REGISTER sip:a SIP/2.0\r\nX: " + b"a" * size
        stream = StreamParser()
        counts.append(counted(functools.partial(octet_by_octet, stream, data)))
    assert counts[1] <= 4 * counts[0]
    assert counts[2] <= 4 * counts[1]
