"""The transaction layer (RFC 3261 section 17, RFC 6026, RFC 4320): the tables of `sipcore.transaction`, driven.

It is told the time (monotonic seconds that do not run backwards) and does no I/O:

    request --> find --> new: open_server --> respond ... --> take_sends
    open_client --> take_sends;  response --> the client whose user it is for
    next_timer, on_time: repetitions, ends, and the clients that heard nothing

A client transaction gives its user exactly one final result: a final response, itself from `on_time` or `failed`;
to INVITE, any number of further 2xx. Everything ends by time alone, but for two that wait for their user: an INVITE
server transaction for its final response, a ringing INVITE client transaction for `cancel` (Timer C is the proxy's).

Over 400 lines: clients and servers share the timers, the sends and the bounds.
"""

import enum
from collections.abc import Iterable
from typing import Any, Final

from sipcore import hop_by_hop, proxy
from sipcore.errors import ParseError
from sipcore.message import Request, Response, Row, respond
from sipcore.parser import parse_datagram
from sipcore.timers import Timers
from sipcore.transaction import (
    CLIENT,
    COOKIE,
    GIVE_UP,
    INVITE_CLIENT,
    INVITE_SERVER,
    T1,
    T2,
    T4,
    TABLE,
    TIMER_J,
    TRYING_AFTER,
    Action,
    Client,
    Server,
    State,
    Stimulus,
    Transaction,
    transaction_key,
)

__all__ = ["Client", "RequestMatch", "ResponseMatch", "Sending", "Server", "Transactions"]

LAST_TIMER_A: Final = 16.0
"""The interval that ends shortly before Timer B."""
UNANSWERED: Final = GIVE_UP - TRYING_AFTER
OPEN: Final = frozenset({State.CALLING, State.TRYING, State.PROCEEDING})
"""The states without a final response."""
# Bound once: until Python 3.12 each look at a member of an enum is a call, and a call makes a hundred of them.
ACCEPTED: Final = State.ACCEPTED
COMPLETED: Final = State.COMPLETED
PROCEEDING: Final = State.PROCEEDING
TERMINATED: Final = State.TERMINATED
ON_ACK: Final = Stimulus.ACK
ON_CANCEL_UNHEARD: Final = Stimulus.CANCEL_UNHEARD
ON_FINAL: Final = Stimulus.FINAL
ON_NO_FINAL: Final = Stimulus.NO_FINAL
ON_PROVISIONAL: Final = Stimulus.PROVISIONAL
ON_REFUSAL: Final = Stimulus.REFUSAL
ON_REQUEST: Final = Stimulus.REQUEST
ON_SUCCESS: Final = Stimulus.SUCCESS
ON_TIMER_B: Final = Stimulus.TIMER_B
ON_TIMER_D: Final = Stimulus.TIMER_D
ON_TIMER_F: Final = Stimulus.TIMER_F
ON_TIMER_H: Final = Stimulus.TIMER_H
ON_TIMER_I: Final = Stimulus.TIMER_I
ON_TIMER_J: Final = Stimulus.TIMER_J
ON_TIMER_K: Final = Stimulus.TIMER_K
ON_TIMER_L: Final = Stimulus.TIMER_L
ON_TIMER_M: Final = Stimulus.TIMER_M
ON_TRANSPORT_ERROR: Final = Stimulus.TRANSPORT_ERROR
ON_TRYING_DUE: Final = Stimulus.TRYING_DUE
DO_ACK: Final = Action.ACK
DO_INFORM: Final = Action.INFORM
DO_NOTHING: Final = Action.NOTHING
DO_RESEND: Final = Action.RESEND
DO_TO_TU: Final = Action.TO_TU
DO_TO_TU_AND_ACK: Final = Action.TO_TU_AND_ACK
NOTHING_KEPT: Final = Request("", "", ())

Sending = tuple[Any, bytes, str]
"""Origin or destination, octets, and the branch for `failed`: "" where nobody needs to know."""


class RequestMatch(enum.StrEnum):
    """What a received request is to the layer."""

    NEW = "new"
    """No transaction has it; also an ACK to a 2xx, and a CANCEL of what is unknown."""
    RETRANSMISSION = "retransmission"
    """Done with: the last response is sent again if the state says so (CHECKLIST X04)."""
    ACKED = "ack"
    """An ACK to a final response other than 2xx, or too early: done with."""
    INVITE = "invite"
    """A CANCEL, or an ACK to a 2xx that has the branch of its INVITE: for the user of that INVITE."""


class ResponseMatch(enum.StrEnum):
    """What a received response is to the layer."""

    PASS = "pass"  # noqa: S105  # a move of figure 5, no password
    """For the client transaction's user."""
    ABSORBED = "absorbed"
    """A retransmission, or the answer to our own CANCEL: done with."""
    UNMATCHED = "unmatched"
    """Of no transaction: to be dropped (RFC 6026 section 7.3)."""


IS_ACKED: Final = RequestMatch.ACKED
IS_INVITE: Final = RequestMatch.INVITE
IS_NEW: Final = RequestMatch.NEW
IS_RETRANSMISSION: Final = RequestMatch.RETRANSMISSION
IS_ABSORBED: Final = ResponseMatch.ABSORBED
IS_PASS: Final = ResponseMatch.PASS
IS_UNMATCHED: Final = ResponseMatch.UNMATCHED


class Transactions:
    """All transactions of one element; how many there may be is the caller's to limit before it opens one."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}
        self._clients: dict[str, Client] = {}
        self._cancels: dict[str, Client] = {}
        """The CANCELs we sent, by the branch of their INVITE, which is theirs too."""
        self._pending = 0
        self._sends: list[Sending] = []
        self._finished: list[Transaction] = []
        """Those that something need not be kept of after this wake-up."""
        repeats = (T1, 2 * T1, 4 * T1, T2, 2 * T2, LAST_TIMER_A)
        self._timers = Timers((TRYING_AFTER, UNANSWERED, GIVE_UP), (T4, GIVE_UP), repeats)

    def __len__(self) -> int:
        return len(self._servers) + len(self._clients) + len(self._cancels)

    @property
    def servers(self) -> int:
        """How many server transactions there are, those that only absorb included."""
        return len(self._servers)

    @property
    def pending(self) -> int:
        """How many server transactions have no final response yet."""
        return self._pending

    # --- server transactions --------------------------------------------------------------------------------------

    def find(self, request: Request, now: float) -> tuple[RequestMatch, Server | None]:
        """What a received request is to us (RFC 3261 section 17.2.3), and the server transaction that says so."""
        server = self._servers.get(transaction_key(request))
        if request.method == "ACK":
            return self._acknowledged(server, request, now)
        if server is not None:
            _, action = server.table.get((server.state, ON_REQUEST), (server.state, DO_NOTHING))
            if action is DO_RESEND and server.sent:
                self._sends.append((server.origin, server.sent, ""))
            return IS_RETRANSMISSION, server
        if request.method == "CANCEL":
            invite = self._servers.get(transaction_key(request, "INVITE"))
            if invite is not None:
                return IS_INVITE, invite
        return IS_NEW, None

    def _acknowledged(self, server: Server | None, ack: Request, now: float) -> tuple[RequestMatch, Server | None]:
        if server is None or (server.state is COMPLETED and not _is_of(ack, server.sent)):
            return IS_NEW, None
        before = server.state
        server.state, action = server.table.get((before, ON_ACK), (before, DO_NOTHING))
        if server.state is not before:
            server.repeats = 0.0
            server.sent = b""
            self._absorb_for(T4, ON_TIMER_I, server, now)
        return (IS_INVITE if action is DO_TO_TU else IS_ACKED), server

    def open_server(self, request: Request, origin: object, reliable: bool, now: float, user: object = None) -> Server:
        """Begins the transaction of a request, other than ACK, that is new, or of a CANCEL of an INVITE.

        Its top Via has `received` and `rport` already: the 100 that another request than INVITE gets after 3.5 s
        (CHECKLIST X02) is made of it. ValueError if there is such a transaction.
        """
        key = transaction_key(request)
        if key in self._servers:
            raise ValueError("this request has a transaction")
        self._servers[key] = server = Server(key, request, origin, reliable, user)
        self._pending += 1
        if server.table is TABLE:
            self._timers.end(server, ON_TRYING_DUE, TRYING_AFTER, now)
        return server

    def respond(self, server: Server, response: Response, now: float) -> bool:
        """Sends a response if figure 7 or 8 and RFC 4320 let it leave, and says whether it left.

        To other requests than INVITE, 1xx are the layer's own, and a 408 ends the transaction in silence.
        ValueError if it cannot be encoded.
        """
        return self.respond_with(server, response.status, response.encode(), now)

    def respond_with(self, server: Server, status: int, data: bytes, now: float) -> bool:
        """The same, by the octets of a response with this status."""
        if server.table is INVITE_SERVER:
            return self._send(server, _to_invite(status), data, now)
        if status < 200:
            return False
        return self._send(server, ON_NO_FINAL if status == 408 else ON_FINAL, data, now)

    def _send(self, server: Server, stimulus: Stimulus, data: bytes, now: float) -> bool:
        before = server.state
        move = server.table.get((before, stimulus))
        if move is None:
            return False
        server.state, action = move
        if action is DO_NOTHING:
            data = b""
        else:
            self._sends.append((server.origin, data, ""))
        if server.state is PROCEEDING:
            server.sent = data
        elif server.state is not before:
            self._answered(server, data, now)
        return action is not DO_NOTHING

    def _answered(self, server: Server, data: bytes, now: float) -> None:
        """Enters Accepted or Completed."""
        self._pending -= 1
        self._finished.append(server)
        server.sent = data
        if server.table is TABLE:
            self._absorb_for(TIMER_J, ON_TIMER_J, server, now)
        elif server.state is ACCEPTED:
            server.sent = b""  # it is for the sender of a 2xx to repeat it (RFC 6026 section 7.1)
            self._timers.end_lazily(server, ON_TIMER_L, GIVE_UP, now)
        else:
            self._timers.end_lazily(server, ON_TIMER_H, GIVE_UP, now)
            if not server.reliable:
                self._timers.repeat(server, T1, now)

    def forget(self, server: Server) -> None:
        """Ends a transaction at once, answered or not; a retransmission would be a new request."""
        if server.state is not TERMINATED:
            self._end(server)

    # --- client transactions --------------------------------------------------------------------------------------

    def open_client(
        self, request: Request, destination: object, reliable: bool, now: float, user: object = None
    ) -> Client:
        """Sends a request and begins its transaction, known by the branch of the top Via.

        ValueError if the branch is in use, or the request cannot be encoded.
        """
        branch = hop_by_hop.top_branch(request)
        if branch in self._clients:
            raise ValueError("this branch has a transaction")
        data = request.encode()
        self._clients[branch] = client = Client(branch, request, destination, reliable, user)
        self._begin(client, data, now)
        return client

    def _begin(self, client: Client, data: bytes, now: float) -> None:
        self._sends.append((client.destination, data, client.branch))
        timer = ON_TIMER_B if client.table is INVITE_CLIENT else ON_TIMER_F
        self._timers.end(client, timer, GIVE_UP, now)
        if not client.reliable:
            client.sent = data
            self._timers.repeat(client, T1, now)

    def response(self, branch: str, response: Response, now: float) -> tuple[ResponseMatch, Client | None]:
        """What a received response with this branch is to us, and its client transaction (RFC 3261 section 17.1.3).

        The branch is one request's, but for that of a CANCEL. A response to it whose CSeq names another method, or
        cannot be read, is its result all the same: nothing else will come. Whether it is fit to be passed on is its
        user's to judge. A final response to INVITE other than 2xx has then been acknowledged (CHECKLIST X11).
        """
        cancels = proxy.is_of(response, "CANCEL")
        client = (self._cancels if cancels else self._clients).get(branch.lower())
        if client is None:
            return IS_UNMATCHED, None
        if client.table is INVITE_CLIENT:
            stimulus = _to_invite(response.status)
        else:
            stimulus = ON_FINAL if response.status >= 200 else ON_PROVISIONAL
        before = client.state
        move = client.table.get((before, stimulus))
        if move is None:
            return IS_ABSORBED, client
        client.state, action = move
        if action is DO_ACK:
            self._sends.append((client.destination, client.sent, ""))
            return IS_ABSORBED, client
        if client.state is PROCEEDING:
            if before is not PROCEEDING:
                self._proceeding(client, now)
        elif client.state is not before:
            self._final(client, action, response, now)
        return (IS_ABSORBED if cancels else IS_PASS), client

    def _proceeding(self, client: Client, now: float) -> None:
        if client.table is CLIENT:
            client.interval = T2
            return
        client.ends = client.repeats = 0.0
        client.sent = b""
        if client.cancelled:
            self._send_cancel(client, now)

    def _final(self, client: Client, action: Action, response: Response, now: float) -> None:
        """Enters Accepted or Completed."""
        self._finished.append(client)
        client.repeats = 0.0
        client.sent = b""
        if action is DO_TO_TU_AND_ACK:
            client.sent = hop_by_hop.ack(client.request, response).encode()
            # Without its branch: the INVITE has its result, and a lost ACK is asked for again.
            self._sends.append((client.destination, client.sent, ""))
            self._absorb_for(GIVE_UP, ON_TIMER_D, client, now)
        elif client.state is ACCEPTED:
            self._timers.end_lazily(client, ON_TIMER_M, GIVE_UP, now)
        else:
            self._absorb_for(T4, ON_TIMER_K, client, now)

    def cancel(self, client: Client, now: float, rows: Iterable[Row] = ()) -> None:
        """Cancels an INVITE (RFC 3261 section 9.1): now if it has had a 1xx, else when one comes (CHECKLIST X13).

        `rows` go into the CANCEL: Reason. Of no effect on other methods, after a final response, and the second time.
        If 64*T1 after the CANCEL there is no final response, the INVITE has timed out.
        """
        if client.table is not INVITE_CLIENT or client.cancelled or client.state not in OPEN:
            return
        client.cancelled = True
        client.cancel_rows = tuple(rows)
        if client.state is PROCEEDING:
            self._send_cancel(client, now)

    def _send_cancel(self, client: Client, now: float) -> None:
        request = hop_by_hop.cancel(client.request, client.cancel_rows)
        cancel = Client(client.branch, request, client.destination, client.reliable, None)
        self._cancels[client.branch] = cancel
        self._begin(cancel, request.encode(), now)
        self._timers.end(client, ON_CANCEL_UNHEARD, GIVE_UP, now)

    def failed(self, branch: str, now: float) -> Client | None:
        """The client transaction that ends because its request or CANCEL cannot be sent (RFC 3261 section 17.1.4).

        None if there is none (any more), or it has had its final response.
        """
        cancel = self._cancels.get(branch)
        if cancel is not None:
            self._end(cancel)
        client = self._clients.get(branch)
        if client is None or (client.state, ON_TRANSPORT_ERROR) not in client.table:
            return None
        unanswered = client.state in OPEN
        self._end(client)
        return client if unanswered else None

    def client(self, branch: str) -> Client | None:
        """The client transaction of a branch, while it has no final response; not that of a CANCEL."""
        client = self._clients.get(branch)
        return client if client is not None and client.state in OPEN else None

    def open_clients(self) -> list[Client]:
        """Those that have no final response yet, CANCELs left out."""
        return [client for client in self._clients.values() if client.state in OPEN]

    def forget_client(self, client: Client) -> None:
        """Ends a transaction at once and without a result; what still comes for it is unmatched."""
        if client.state is not TERMINATED:
            self._end(client)

    # --- time -----------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When `on_time` is to be called next; None while nothing runs."""
        return self._timers.next()

    def on_time(self, now: float) -> list[Client]:
        """Lets fire what is due; returns the client transactions that thereby ended without a final response.

        By Timer B or F, or because 64*T1 have passed after the CANCEL.
        """
        timed_out: list[Client] = []
        wake = self._timers.next()
        if wake is None or now < wake:
            return timed_out
        for transaction in self._timers.ended(now):
            move = transaction.table.get((transaction.state, transaction.timer))
            if move is not None and move[0] is TERMINATED:
                if move[1] is DO_INFORM and isinstance(transaction, Client) and transaction.method != "CANCEL":
                    timed_out.append(transaction)
                self._end(transaction)
            elif isinstance(transaction, Server):
                self._unanswered(transaction, now)
        for transaction in self._timers.repeated(now):
            self._repeat(transaction, now)
        self._timers.look()
        return timed_out

    def _unanswered(self, server: Server, now: float) -> None:
        """What RFC 4320 asks for while a request other than INVITE has no final response."""
        if server.timer is ON_TRYING_DUE:
            self._send(server, ON_TRYING_DUE, respond(server.request, 100).encode(), now)
            self._timers.end(server, ON_NO_FINAL, UNANSWERED, now)
        else:
            self._send(server, ON_NO_FINAL, b"", now)

    def _repeat(self, transaction: Transaction, now: float) -> None:
        """Timer A, E or G: none of them changes the state."""
        if isinstance(transaction, Client):
            self._sends.append((transaction.destination, transaction.sent, transaction.branch))
        elif isinstance(transaction, Server):
            self._sends.append((transaction.origin, transaction.sent, ""))
        if transaction.table is not INVITE_CLIENT:
            self._timers.repeat(transaction, min(transaction.interval, T2), now)
        elif transaction.interval <= LAST_TIMER_A:
            self._timers.repeat(transaction, transaction.interval, now)

    def take_sends(self) -> list[Sending]:
        """What is to be sent, in order; once, at the end of each wake-up.

        What has had its final response lets go of its request now, and of its user, too, unless he may be asked again:
        by a further 2xx, or by a CANCEL of what is answered. There are 32 s of these: they cost the collector of cycles
        most, and memory.
        """
        if self._finished:
            for transaction in self._finished:
                transaction.request = NOTHING_KEPT
                state = transaction.state
                if state is TERMINATED or (state is COMPLETED and transaction.table is not INVITE_SERVER):
                    transaction.user = None
            self._finished.clear()
        taken, self._sends = self._sends, []
        return taken

    def _absorb_for(self, seconds: float, timer: Stimulus, transaction: Transaction, now: float) -> None:
        """Timer D, I, J or K, which is 0 on streams (CHECKLIST X07)."""
        if transaction.reliable:
            self._end(transaction)
        else:
            self._timers.end_lazily(transaction, timer, seconds, now)

    def _end(self, transaction: Transaction) -> None:
        if isinstance(transaction, Client):
            cancels = transaction.method == "CANCEL"
            del (self._cancels if cancels else self._clients)[transaction.branch]
        elif isinstance(transaction, Server):
            del self._servers[transaction.key]
            if transaction.state in OPEN:
                self._pending -= 1
        transaction.state = TERMINATED
        transaction.ends = transaction.repeats = 0.0
        transaction.sent = b""
        self._finished.append(transaction)


def _to_invite(status: int) -> Stimulus:
    if status < 200:
        return ON_PROVISIONAL
    return ON_SUCCESS if status < 300 else ON_REFUSAL


def _is_of(ack: Request, response: bytes) -> bool:
    """Whether an ACK is that of its INVITE's final response: without the cookie, by the To tag (section 17.2.3)."""
    if ack.branch.lower().startswith(COOKIE):
        return True
    try:
        return parse_datagram(response).to.tag == ack.to.tag
    except ParseError:
        return True  # a To that nobody can read tells nothing
