"""sipcore.transactions: two layers joined by a network that loses, doubles and reorders; and many abandoned calls."""

import gc
import heapq
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipcore.message import Request, Response, respond
from sipcore.parser import parse_datagram
from sipcore.timers import SLACK
from sipcore.transaction import T1, State
from sipcore.transactions import Client, RequestMatch, ResponseMatch, Server, Transactions
from tests.kit.transactions import PEER, is_empty, request, response, run

METHODS = ("INVITE", "INVITE", "INVITE", "BYE", "OPTIONS", "MESSAGE")
TIMER_C = 180.0
TIMER_H = 64 * T1


class Network:
    """Virtual time, and two layers that hear each other's octets with some delay, if at all."""

    def __init__(self, seed: int, loss: float, doubling: float, *, reliable: bool) -> None:
        self.random = random.Random(seed)
        self.loss, self.doubling, self.reliable = loss, doubling, reliable
        self.now = 0.0
        self.uac, self.uas = Transactions(), Transactions()
        self.due: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.arrivals = {"up": 0.0, "down": 0.0}
        self.results: dict[str, list[str]] = {}
        self.open: dict[str, Server] = {}
        self.answered: Counter[str] = Counter()

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.due, (self.now + seconds, self.count, do))

    def carry(self, way: str, data: bytes, receive: Callable[[bytes], None]) -> None:
        if self.reliable:
            # In order, and whole.
            self.arrivals[way] = arrival = max(self.arrivals[way], self.now + self.random.uniform(0.0, 0.2))
            self.at(arrival - self.now, lambda: receive(data))
            return
        copies = 0 if self.random.random() < self.loss else 1 + (self.random.random() < self.doubling)
        for _ in range(copies):
            self.at(self.random.choice((0.01, 0.05, 0.7, 3.0)) * self.random.random(), lambda: receive(data))

    def flush(self) -> None:
        for _, data, _ in self.uac.take_sends():
            self.carry("down", data, self.at_uas)
        for _, data, _ in self.uas.take_sends():
            self.carry("up", data, self.at_uac)

    def run(self) -> None:
        self.flush()
        while True:
            times = [self.uac.next_timer(), self.uas.next_timer(), self.due[0][0] if self.due else None]
            next_ = min((time for time in times if time is not None), default=None)
            if next_ is None:
                return
            self.now = max(self.now, next_)
            while self.due and self.due[0][0] <= self.now:
                heapq.heappop(self.due)[2]()
            for client in self.uac.on_time(self.now):
                self.result(client, "timeout")
            assert self.uas.on_time(self.now) == []
            self.flush()

    # --- the caller -----------------------------------------------------------------------------------------------

    def call(self, number: int, method: str) -> None:
        branch = f"z9hG4bKn{number}"
        client = self.uac.open_client(request(method, branch=branch), PEER, self.reliable, self.now, branch)
        self.results[client.branch] = []
        if method == "INVITE":
            patience = self.random.choice((0.0, 0.3, 2.0, 20.0, TIMER_C))
            self.at(patience, lambda: self.uac.cancel(client, self.now))

    def result(self, client: Client, name: str) -> None:
        assert client.user is not None
        self.results[client.branch].append(name)

    def at_uac(self, data: bytes) -> None:
        message = parse_datagram(data)
        assert isinstance(message, Response)
        heard, client = self.uac.response(message.branch, message, self.now)
        if heard is ResponseMatch.PASS and message.status >= 200:
            assert client is not None
            if message.status < 300 and client.method == "INVITE" and self.results[client.branch][:1] == ["200"]:
                return  # a repeated 2xx
            self.result(client, str(message.status))

    # --- the callee -----------------------------------------------------------------------------------------------

    def at_uas(self, data: bytes) -> None:
        message = parse_datagram(data)
        assert isinstance(message, Request)
        known, invite = self.uas.find(message, self.now)
        if known in (RequestMatch.RETRANSMISSION, RequestMatch.ACKED) or message.method == "ACK":
            return
        server = self.uas.open_server(message, PEER, self.reliable, self.now)
        if message.method == "CANCEL":
            self.respond(server, message, 200 if invite else 481)
            if invite is not None:
                self.respond(invite, invite.request, 487)
            return
        for _ in range(self.random.randrange(3)):
            self.at(self.random.uniform(0.0, 5.0), lambda: self.respond(server, message, 180))
        final = self.random.choice((200, 200, 404, 486, 503))
        longest = self.random.choice((0.1, 3.0, 40.0, 200.0))
        self.at(self.random.uniform(0.0, longest), lambda: self.respond(server, message, final))

    def respond(self, server: Server, message: Request, status: int) -> None:
        if message.rows and self.uas.respond(server, respond(message, status, to_tag="t"), self.now) and status >= 200:
            self.answered[server.key] += 1


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from((0.0, 0.1, 0.4, 0.8, 1.0)),
    doubling=st.sampled_from((0.0, 0.3, 1.0)),
    reliable=st.booleans(),
)
def test_x17_every_transaction_ends_with_one_result_and_nothing_remains(
    seed: int, loss: float, doubling: float, reliable: bool
) -> None:
    net = Network(seed, loss, doubling, reliable=reliable)
    for number in range(12):
        method = net.random.choice(METHODS)
        net.at(net.random.uniform(0.0, 10.0), lambda number=number, method=method: net.call(number, method))  # type: ignore[misc]  # a loop variable kept
    net.run()
    assert len(net.results) == 12
    assert {len(results) for results in net.results.values()} == {1}
    assert is_empty(net.uac)
    assert is_empty(net.uas)
    if reliable:
        assert set(net.answered.values()) <= {1}


@pytest.mark.parametrize("reliable", [False, True])
def test_x17_ten_thousand_abandoned_invites_leave_nothing_behind(reliable: bool) -> None:
    layer = Transactions()
    before = living()
    for number in range(10_000):
        now = number // 100 / 10  # 1000 a second
        branch = f"z9hG4bK{number}"
        server = layer.open_server(request(branch=branch), PEER, reliable, now)
        layer.respond(server, respond(server.request, 100), now)
        client = layer.open_client(request(branch=f"{branch}x"), PEER, reliable, now, server)
        if number % 2:
            layer.response(client.branch, response(client.request, 180), now)
        layer.take_sends()
    del client, server
    assert (layer.servers, len(layer), layer.pending) == (10_000, 20_000, 10_000)
    # Neither callers nor callees are ever heard of again. Half of the calls ring until Timer C cancels them.
    cancelled = False
    while (at := layer.next_timer()) is not None or not cancelled:
        if at is None:
            cancelled, at = True, now + TIMER_C
            assert (len(layer) - layer.servers, layer.pending) == (5_000, 5_000)
            for ringing in list(layer._clients.values()):
                layer.cancel(ringing, at)
        for ended in layer.on_time(at):
            assert isinstance(ended.user, Server)
            assert layer.respond(ended.user, response(ended.request, 408), at)
        layer.take_sends()
        assert at <= now + TIMER_C + 64 * T1 + TIMER_H + SLACK
    ended = None  # type: ignore[assignment]  # it is to be collected
    ringing = None  # type: ignore[assignment]  # likewise
    assert is_empty(layer)
    assert living() == before


def living() -> Counter[type]:
    """How many messages and transactions exist."""
    gc.collect()
    kinds = (Request, Response, Server, Client)
    return Counter(type(each) for each in gc.get_objects() if isinstance(each, kinds))


def test_x17_the_entries_of_timers_are_not_many_more_than_the_transactions() -> None:
    layer = Transactions()
    for number in range(2_000):
        now = number / 10
        message = request("BYE", branch=f"z9hG4bK{number}")
        client = layer.open_client(message, PEER, False, now)
        layer.response(client.branch, response(message, 200), now)
        server = layer.open_server(message, PEER, False, now)
        layer.respond(server, respond(message, 200), now)
        layer.on_time(now)
        layer.take_sends()
        # 10 a second: those of 32 seconds at two entries each, of 5 seconds at one, and 3.5 and 0.5 skipped.
        assert len(layer._timers) <= 10 * (32 * 2 + 5 + 4 + 1) + 20
    run(layer, 10_000.0)
    layer.take_sends()
    assert is_empty(layer)
    assert server.state is State.TERMINATED
