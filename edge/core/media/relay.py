"""Calls whose media goes through rtpengine: which, and the SDP of each of their messages (CHECKLIST N17). PURE.

A message that carries SDP waits for rtpengine's answer and then goes on with the rewritten body; what else comes for
the same branch meanwhile waits behind it, so that no 200 overtakes its 183. An offer without an answer of rtpengine is
refused, since neither side could hear the other; an answer goes on as it came.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from edge.core.actions import Media
from edge.core.answers import Answers
from edge.core.flow import Flow
from edge.core.media import commands as media
from edge.core.media.commands import Kind
from edge.core.tokens.dialog import Dialog
from sipcore.errors import ParseError
from sipcore.message import Message, Request, Response

SDP = "application/sdp"
DELAYED = 0x10

Then = Callable[[bytes | None, float], None]
"""What is done with the rewritten SDP (None: there is none) at a time."""


class Leg(NamedTuple):
    """How one branch of a relayed call is known to rtpengine."""

    call_id: str
    from_tag: str
    """The caller's."""
    branch: str
    """Of the INVITE; "" within the dialog."""
    caller: Kind
    callee: Kind
    delayed: bool = False
    """Whether the INVITE had no offer: then the callee's 18x or 2xx has it, and PRACK or ACK the answer."""

    @property
    def octet(self) -> int:
        """What a Record-Route token must say of it."""
        return media.legs(self.caller, self.callee) | (DELAYED if self.delayed else 0)


class Relaying:
    """The media of one edge's calls."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._settings = answers.settings
        self._number = 0
        self._waiting: dict[int, Then] = {}
        self._queues: dict[str, deque[Callable[[float], None]]] = {}
        """By branch, what waits behind an SDP that is with rtpengine."""

    def __len__(self) -> int:
        return len(self._waiting)

    # --- which calls ----------------------------------------------------------------------------------------------

    def kinds(self, domain: str, caller: Flow, callee: Flow) -> tuple[Kind, Kind] | None:
        """The kinds of the two legs of a relayed call; None where media goes directly."""
        mode = self._settings.media(domain)
        if mode == "direct":
            return None
        legs = tuple(media.leg_kind(flow.transport, self._settings.srtp) for flow in (caller, callee))
        return (legs[0], legs[1]) if media.needs_relay(mode, *legs) else None

    # --- SDP ------------------------------------------------------------------------------------------------------

    def offer(self, message: Message, leg: Leg, *, by_caller: bool, then: Then) -> None:
        """Has the offer in a message rewritten for the other side."""
        offerer, answerer = (leg.caller, leg.callee) if by_caller else (leg.callee, leg.caller)
        mine, other = self._tags(message, leg, by_caller=by_caller)
        self._ask(media.offer(leg.call_id, mine, leg.branch, message.body, offerer, answerer, other), then)

    def answer(self, message: Message, leg: Leg, *, by_caller: bool, then: Then) -> None:
        """Has the answer in a message rewritten for who offered."""
        offerer, answerer = (leg.callee, leg.caller) if by_caller else (leg.caller, leg.callee)
        mine, other = self._tags(message, leg, by_caller=not by_caller)
        self._ask(media.answer(leg.call_id, mine, leg.branch, other, message.body, offerer, answerer), then)

    @staticmethod
    def _tags(message: Message, leg: Leg, *, by_caller: bool) -> tuple[str, str]:
        """The tag of the side that offers, and that of the other."""
        tags = {_tag(message, "from"), _tag(message, "to")}
        tags.discard(leg.from_tag)
        callee = tags.pop() if tags else ""
        return (leg.from_tag, callee) if by_caller else (callee, leg.from_tag)

    def end_branch(self, leg: Leg) -> None:
        """A branch has failed: its ports are free."""
        self._ask(media.delete(leg.call_id, leg.from_tag, leg.branch), _nothing)
        self._queues.pop(leg.branch, None)

    def end_call(self, leg: Leg, callee_tag: str) -> None:
        """The dialog with this callee has ended: its ports are free; another that the same INVITE began goes on."""
        self._ask(media.delete(leg.call_id, leg.from_tag, to_tag=callee_tag), _nothing)

    def _ask(self, command: dict[str, object], then: Then) -> None:
        self._number += 1
        self._waiting[self._number] = then
        self._answers.actions.media.append(Media(self._number, command))

    def media_reply(self, number: int, reply: dict[str, object] | None, now: float) -> None:
        """rtpengine's answer; None: there was none in time."""
        then = self._waiting.pop(number, None)
        if then is None:
            self._answers.drop("late-relay-answer")
            return
        body = media.rewritten(reply)
        if reply is None:
            self._answers.drop("relay-away")
        then(body, now)

    # --- order ----------------------------------------------------------------------------------------------------

    def in_order(self, branch: str, step: Callable[[float], None], now: float) -> None:
        """Does a step now, or after what waits for rtpengine on this branch."""
        queue = self._queues.get(branch)
        if queue is None:
            step(now)
        else:
            queue.append(step)

    def hold(self, branch: str) -> None:
        """What comes next on this branch waits."""
        self._queues.setdefault(branch, deque())

    def release(self, branch: str, now: float) -> None:
        """It waits no longer, up to the next that holds the branch again."""
        queue = self._queues.pop(branch, None)
        while queue:
            step = queue.popleft()
            step(now)
            if branch in self._queues:
                self._queues[branch].extend(queue)
                return


def leg_of(dialog: Dialog, call_id: str, caller_tag: str) -> Leg | None:
    """How rtpengine knows a dialog, by its token; None where its media goes directly."""
    kinds = media.kinds(dialog.media & ~DELAYED)
    return None if kinds is None else Leg(call_id, caller_tag, "", *kinds, delayed=bool(dialog.media & DELAYED))


def _tag(message: Message, name: str) -> str:
    """The tag in From or To; "" also where that cannot be read: a response passes all the same."""
    try:
        return (message.from_ if name == "from" else message.to).tag or ""
    except ParseError:
        return ""


def leg_in(dialog: Dialog, request: Request, *, to_callee: bool) -> Leg | None:
    """The same of a request within it."""
    caller_tag = request.from_.tag if to_callee else request.to.tag
    return leg_of(dialog, request.call_id, caller_tag or "") if dialog.media else None


def has_sdp(message: Message) -> bool:
    """Whether a message carries SDP alone (RFC 3261 section 7.4.1); other bodies pass untouched."""
    kind = message.first("content-type")
    return bool(message.body) and kind is not None and kind.partition(";")[0].strip().lower() == SDP


def with_body(message: Request, body: bytes) -> Request:
    """The request with another body."""
    return Request(message.method, message.uri, message.rows, body)


def response_with_body(message: Response, body: bytes) -> Response:
    """The response with another body."""
    return Response(message.status, message.reason, message.rows, body)


def _nothing(_: bytes | None, __: float) -> None:
    """A deletion needs no answer."""
