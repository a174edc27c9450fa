"""The non-INVITE server transaction (RFC 3261 section 17.2.2, figure 8), as RFC 4320 amends it: a table.

It sends nothing, waits for nothing and asks no clock. Who drives it keeps, for each `transaction_key`, the state
and the bytes of the last response, calls `step`, does the `Action`, and lets `TIMER_J` and `TRYING_AFTER` pass.

A transaction that never gets a final response ends in silence: by then its client has given up.
"""

import enum
import hashlib
from typing import Final

from sipcore.message import Request

T1: Final = 0.5
TRYING_AFTER: Final = 3.5
"""Seconds without a response after which a 100 is due, and on UDP not before: those until a client's Timer E
reaches T2, 0.5 + 1 + 2 (RFC 4320 section 4.1)."""
TIMER_J: Final = 64 * T1
"""Seconds that a completed transaction absorbs retransmissions on UDP; 0 on streams."""

_KEY_LENGTH: Final = 200
COOKIE: Final = "z9hg4bk"


class State(enum.Enum):
    """The states of figure 8."""

    TRYING = "Trying"
    PROCEEDING = "Proceeding"
    COMPLETED = "Completed"
    TERMINATED = "Terminated"


class Stimulus(enum.Enum):
    """What moves a transaction."""

    REQUEST = "Request"
    """A retransmission."""
    PROVISIONAL = "1xx from TU"
    FINAL = "200-699 from TU"
    TRANSPORT_ERROR = "Transport Err"
    TIMER_J = "Timer J fires"


class Action(enum.Enum):
    """What a move asks for."""

    NOTHING = "nothing"
    SEND = "send response"
    RESEND = "send last response"
    INFORM = "inform TU"


# Figure 8. What is not in it changes nothing and asks for nothing. "Any other final responses passed by
# the TU to the server transaction MUST be discarded while in the Completed state."
TABLE: Final[dict[tuple[State, Stimulus], tuple[State, Action]]] = {
    (State.TRYING, Stimulus.REQUEST): (State.TRYING, Action.NOTHING),
    (State.TRYING, Stimulus.PROVISIONAL): (State.PROCEEDING, Action.SEND),
    (State.TRYING, Stimulus.FINAL): (State.COMPLETED, Action.SEND),
    (State.PROCEEDING, Stimulus.REQUEST): (State.PROCEEDING, Action.RESEND),
    (State.PROCEEDING, Stimulus.PROVISIONAL): (State.PROCEEDING, Action.SEND),
    (State.PROCEEDING, Stimulus.FINAL): (State.COMPLETED, Action.SEND),
    (State.PROCEEDING, Stimulus.TRANSPORT_ERROR): (State.TERMINATED, Action.INFORM),
    (State.COMPLETED, Stimulus.REQUEST): (State.COMPLETED, Action.RESEND),
    (State.COMPLETED, Stimulus.TRANSPORT_ERROR): (State.TERMINATED, Action.INFORM),
    (State.COMPLETED, Stimulus.TIMER_J): (State.TERMINATED, Action.NOTHING),
}


def stimulus(status: int) -> Stimulus:
    """What a response of this status is to a transaction; ValueError for one that may not be sent at all.

    No provisional response but 100, and never a 408 (RFC 4320 sections 4.1 and 4.2).
    """
    if status == 100:
        return Stimulus.PROVISIONAL
    if not 200 <= status <= 699 or status == 408:
        raise ValueError(f"{status} is no response to a non-INVITE request")
    return Stimulus.FINAL


def step(state: State, stimulus: Stimulus) -> tuple[State, Action]:
    """The next state and what to do, by figure 8."""
    return TABLE.get((state, stimulus), (state, Action.NOTHING))


def transaction_key(request: Request) -> str:
    """What a retransmission has in common with its request (RFC 3261 section 17.2.3), in at most 200 characters.

    Branch without case, sent-by and method, ACK as INVITE. Without the cookie in the branch,
    by the RFC 2543 rule: Request-URI, tags, Call-ID, CSeq and top Via (but for what we add to it).
    """
    via = request.via
    branch = via.branch.lower()
    method = "INVITE" if request.method == "ACK" else request.method
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
