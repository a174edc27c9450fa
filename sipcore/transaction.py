"""The four transactions of RFC 3261 section 17 as tables, with RFC 6026 (Accepted) and RFC 4320 in them.

A table sends nothing, waits for nothing and asks no clock. `sipcore.transactions` drives all four: it keeps the
state and the octets of each transaction, looks up the move, does the `Action` and lets the timers pass.
"""

import enum
import hashlib
from typing import Final

from sipcore.message import Request, Row

T1: Final = 0.5
T2: Final = 4.0
T4: Final = 5.0
GIVE_UP: Final = 64 * T1
"""Seconds of timers B, D, F, H, J, L and M, and of the wait behind a CANCEL (RFC 3261 section 9.1)."""
TRYING_AFTER: Final = 3.5
"""Seconds without a response after which a 100 is due, and on UDP not before: those until a client's Timer E
reaches T2, 0.5 + 1 + 2 (RFC 4320 section 4.1)."""
TIMER_J: Final = GIVE_UP
"""Seconds that a completed transaction absorbs retransmissions on UDP; 0 on streams."""

_KEY_LENGTH: Final = 200
COOKIE: Final = "z9hg4bk"


# StrEnum for its hash: that of a plain Enum is Python code, which every look-up in a table would pay for.
class State(enum.StrEnum):
    """The states of figures 5 to 8."""

    CALLING = "Calling"
    TRYING = "Trying"
    PROCEEDING = "Proceeding"
    COMPLETED = "Completed"
    CONFIRMED = "Confirmed"
    ACCEPTED = "Accepted"
    TERMINATED = "Terminated"


class Stimulus(enum.StrEnum):
    """What moves a transaction. Responses are from the wire for a client, from the TU for a server."""

    REQUEST = "Request"
    """A retransmission."""
    ACK = "ACK"
    PROVISIONAL = "1xx"
    SUCCESS = "2xx"
    """To INVITE."""
    REFUSAL = "300-699"
    """To INVITE."""
    FINAL = "200-699"
    """To any other request."""
    NO_FINAL = "no final response within 64*T1"
    """To a non-INVITE request: by then its client has given up (RFC 4320 section 4.2)."""
    TRANSPORT_ERROR = "Transport Err"
    TIMER_A = "Timer A fires"
    TIMER_B = "Timer B fires"
    TIMER_D = "Timer D fires"
    TIMER_E = "Timer E fires"
    TIMER_F = "Timer F fires"
    TIMER_G = "Timer G fires"
    TIMER_H = "Timer H fires"
    TIMER_I = "Timer I fires"
    TIMER_J = "Timer J fires"
    TIMER_K = "Timer K fires"
    TIMER_L = "Timer L fires"
    TIMER_M = "Timer M fires"
    TRYING_DUE = "3.5 s without a response"
    """RFC 4320 section 4.1."""
    CANCEL_UNHEARD = "64*T1 after the CANCEL"
    """RFC 3261 section 9.1."""


class Action(enum.StrEnum):
    """What a move asks for."""

    NOTHING = "nothing"
    SEND = "send response"
    RESEND = "send what was sent last"
    INFORM = "inform TU"
    TO_TU = "pass to TU"
    TO_TU_AND_ACK = "pass to TU, send ACK"
    ACK = "send ACK"


Table = dict[tuple[State, Stimulus], tuple[State, Action]]

# In all four, what is not in the table changes nothing and asks for nothing.

# Figure 5 of RFC 6026. Not in the figure: an error in Proceeding is that of the CANCEL, or of the connection that
# the answer would come by.
INVITE_CLIENT: Final[Table] = {
    (State.CALLING, Stimulus.TIMER_A): (State.CALLING, Action.RESEND),
    (State.CALLING, Stimulus.TIMER_B): (State.TERMINATED, Action.INFORM),
    (State.CALLING, Stimulus.TRANSPORT_ERROR): (State.TERMINATED, Action.INFORM),
    (State.CALLING, Stimulus.PROVISIONAL): (State.PROCEEDING, Action.TO_TU),
    (State.CALLING, Stimulus.SUCCESS): (State.ACCEPTED, Action.TO_TU),
    (State.CALLING, Stimulus.REFUSAL): (State.COMPLETED, Action.TO_TU_AND_ACK),
    (State.PROCEEDING, Stimulus.PROVISIONAL): (State.PROCEEDING, Action.TO_TU),
    (State.PROCEEDING, Stimulus.SUCCESS): (State.ACCEPTED, Action.TO_TU),
    (State.PROCEEDING, Stimulus.REFUSAL): (State.COMPLETED, Action.TO_TU_AND_ACK),
    (State.PROCEEDING, Stimulus.CANCEL_UNHEARD): (State.TERMINATED, Action.INFORM),
    (State.PROCEEDING, Stimulus.TRANSPORT_ERROR): (State.TERMINATED, Action.INFORM),
    (State.COMPLETED, Stimulus.REFUSAL): (State.COMPLETED, Action.ACK),
    (State.COMPLETED, Stimulus.TRANSPORT_ERROR): (State.TERMINATED, Action.INFORM),
    (State.COMPLETED, Stimulus.TIMER_D): (State.TERMINATED, Action.NOTHING),
    (State.ACCEPTED, Stimulus.SUCCESS): (State.ACCEPTED, Action.TO_TU),
    (State.ACCEPTED, Stimulus.TIMER_M): (State.TERMINATED, Action.NOTHING),
}

# Figure 6 of RFC 3261.
CLIENT: Final[Table] = {
    (State.TRYING, Stimulus.TIMER_E): (State.TRYING, Action.RESEND),
    (State.TRYING, Stimulus.TIMER_F): (State.TERMINATED, Action.INFORM),
    (State.TRYING, Stimulus.TRANSPORT_ERROR): (State.TERMINATED, Action.INFORM),
    (State.TRYING, Stimulus.PROVISIONAL): (State.PROCEEDING, Action.TO_TU),
    (State.TRYING, Stimulus.FINAL): (State.COMPLETED, Action.TO_TU),
    (State.PROCEEDING, Stimulus.TIMER_E): (State.PROCEEDING, Action.RESEND),
    (State.PROCEEDING, Stimulus.TIMER_F): (State.TERMINATED, Action.INFORM),
    (State.PROCEEDING, Stimulus.TRANSPORT_ERROR): (State.TERMINATED, Action.INFORM),
    (State.PROCEEDING, Stimulus.PROVISIONAL): (State.PROCEEDING, Action.TO_TU),
    (State.PROCEEDING, Stimulus.FINAL): (State.COMPLETED, Action.TO_TU),
    (State.COMPLETED, Stimulus.TIMER_K): (State.TERMINATED, Action.NOTHING),
}

# Figure 7 of RFC 6026: no transport error ends it, and a 2xx is never repeated by the transaction.
INVITE_SERVER: Final[Table] = {
    (State.PROCEEDING, Stimulus.REQUEST): (State.PROCEEDING, Action.RESEND),
    (State.PROCEEDING, Stimulus.PROVISIONAL): (State.PROCEEDING, Action.SEND),
    (State.PROCEEDING, Stimulus.SUCCESS): (State.ACCEPTED, Action.SEND),
    (State.PROCEEDING, Stimulus.REFUSAL): (State.COMPLETED, Action.SEND),
    (State.PROCEEDING, Stimulus.TRANSPORT_ERROR): (State.PROCEEDING, Action.INFORM),
    (State.COMPLETED, Stimulus.REQUEST): (State.COMPLETED, Action.RESEND),
    (State.COMPLETED, Stimulus.TIMER_G): (State.COMPLETED, Action.RESEND),
    (State.COMPLETED, Stimulus.ACK): (State.CONFIRMED, Action.NOTHING),
    (State.COMPLETED, Stimulus.TIMER_H): (State.TERMINATED, Action.NOTHING),
    (State.COMPLETED, Stimulus.TRANSPORT_ERROR): (State.COMPLETED, Action.INFORM),
    (State.CONFIRMED, Stimulus.TIMER_I): (State.TERMINATED, Action.NOTHING),
    (State.ACCEPTED, Stimulus.REQUEST): (State.ACCEPTED, Action.NOTHING),
    (State.ACCEPTED, Stimulus.ACK): (State.ACCEPTED, Action.TO_TU),
    (State.ACCEPTED, Stimulus.SUCCESS): (State.ACCEPTED, Action.SEND),
    (State.ACCEPTED, Stimulus.TRANSPORT_ERROR): (State.ACCEPTED, Action.INFORM),
    (State.ACCEPTED, Stimulus.TIMER_L): (State.TERMINATED, Action.NOTHING),
}

# Figure 8 of RFC 3261, with RFC 4320. "Any other final responses passed by the TU to the server transaction MUST be
# discarded while in the Completed state."
TABLE: Final[Table] = {
    (State.TRYING, Stimulus.REQUEST): (State.TRYING, Action.NOTHING),
    (State.TRYING, Stimulus.TRYING_DUE): (State.PROCEEDING, Action.SEND),
    (State.TRYING, Stimulus.PROVISIONAL): (State.PROCEEDING, Action.SEND),
    (State.TRYING, Stimulus.FINAL): (State.COMPLETED, Action.SEND),
    (State.TRYING, Stimulus.NO_FINAL): (State.COMPLETED, Action.NOTHING),
    (State.PROCEEDING, Stimulus.REQUEST): (State.PROCEEDING, Action.RESEND),
    (State.PROCEEDING, Stimulus.PROVISIONAL): (State.PROCEEDING, Action.SEND),
    (State.PROCEEDING, Stimulus.FINAL): (State.COMPLETED, Action.SEND),
    (State.PROCEEDING, Stimulus.NO_FINAL): (State.COMPLETED, Action.NOTHING),
    (State.PROCEEDING, Stimulus.TRANSPORT_ERROR): (State.TERMINATED, Action.INFORM),
    (State.COMPLETED, Stimulus.REQUEST): (State.COMPLETED, Action.RESEND),
    (State.COMPLETED, Stimulus.TRANSPORT_ERROR): (State.TERMINATED, Action.INFORM),
    (State.COMPLETED, Stimulus.TIMER_J): (State.TERMINATED, Action.NOTHING),
}


def step(state: State, stimulus: Stimulus) -> tuple[State, Action]:
    """The next state of a non-INVITE server transaction and what to do, by figure 8."""
    return TABLE.get((state, stimulus), (state, Action.NOTHING))


def transaction_key(request: Request, method: str = "") -> str:
    """What a retransmission has in common with its request (RFC 3261 section 17.2.3), in at most 200 characters.

    `method` is that of the request looked for, if it is another one: INVITE for a CANCEL (section 9.2).
    Branch without case, sent-by and method, ACK as INVITE. Without the cookie in the branch,
    by the RFC 2543 rule: Request-URI, tags, Call-ID, CSeq and top Via (but for what we add to it).
    """
    if method:
        return _key(request, method)
    if not request.key:
        request.key = _key(request, "INVITE" if request.method == "ACK" else request.method)
    return request.key


def _key(request: Request, method: str) -> str:
    via = request.via
    branch = via.branch.lower()
    if branch.startswith(COOKIE):
        key = f"{branch} {via.host.lower()}:{via.port} {method}"
        if len(key) <= _KEY_LENGTH:
            return key
        parts = [key]
    else:
        # The ACK's To tag is that of the response.
        to_tag = "" if method == "INVITE" else request.to.tag or ""
        parts = [
            *(request.uri, to_tag, request.from_.tag or "", request.call_id, str(request.cseq.number), method),
            *(via.transport, via.host.lower(), str(via.port), branch),
        ]
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape"))
    return "=" + digest.hexdigest()


# Bound once: until Python 3.12 each look at a member of an enum is a call.
_CALLING, _PROCEEDING, _TRYING = State.CALLING, State.PROCEEDING, State.TRYING
_NO_TIMER = Stimulus.TRANSPORT_ERROR


class Transaction:
    """What server and client transactions share. The timers are set by `sipcore.timers`."""

    __slots__ = (
        *("method", "reliable", "request", "sent", "state", "table", "user"),
        *("ends", "interval", "repeats", "timer"),
    )

    def __init__(self, request: Request, reliable: bool, state: State, table: Table, user: object) -> None:
        self.method = request.method
        self.request = request
        """Kept until the `take_sends` after the final response; then an empty one stands here."""
        self.reliable = reliable
        """Whether it goes by a stream: nothing is repeated, and nothing absorbed in the end."""
        self.state = state
        self.table = table
        """The figure that it goes by."""
        self.user = user
        """What its user keeps with it; None from the `take_sends` on after which nothing more is told to him."""
        self.sent = b""
        """What a repetition sends: a server's last response, a client's request or ACK; else empty."""
        self.timer = _NO_TIMER
        """Which timer `ends` is."""
        self.ends = 0.0
        """When it fires, in monotonic seconds; 0: it does not run."""
        self.repeats = 0.0
        """When Timer A, E or G fires; 0: it does not run."""
        self.interval = 0.0
        """Seconds from then to its next firing."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.state}>"


class Server(Transaction):
    """A request that we answer."""

    __slots__ = ("key", "origin")

    def __init__(self, key: str, request: Request, origin: object, reliable: bool, user: object) -> None:
        if request.method == "INVITE":
            super().__init__(request, reliable, _PROCEEDING, INVITE_SERVER, user)
        else:
            super().__init__(request, reliable, _TRYING, TABLE, user)
        self.key = key
        self.origin = origin
        """Where responses go."""


class Client(Transaction):
    """A request that we sent."""

    __slots__ = ("branch", "cancel_rows", "cancelled", "destination")

    def __init__(self, branch: str, request: Request, destination: object, reliable: bool, user: object) -> None:
        if request.method == "INVITE":
            super().__init__(request, reliable, _CALLING, INVITE_CLIENT, user)
        else:
            super().__init__(request, reliable, _TRYING, CLIENT, user)
        self.branch = branch
        """In lower case."""
        self.destination = destination
        """Where the request goes, its CANCEL, and the ACK to a non-2xx."""
        self.cancelled = False
        """Whether `cancel` came in time. A 2xx that crosses the CANCEL counts all the same (CHECKLIST X15)."""
        self.cancel_rows: tuple[Row, ...] = ()
        """What its CANCEL has besides."""
