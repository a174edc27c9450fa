"""What is told of a call: SIP facts in, events out (`events.calls`). PURE.

A `Telling` belongs to the response context of an INVITE or MESSAGE outside a dialog, an `InDialog` to that of a
request within one; whoever has the context tells both the same. What they make of it goes to `tell`, and nothing waits
for what becomes of it. Times are milliseconds in the log's time, of when the edge received the message in question.

A request that ends with a challenge (401, 407) was no call: nothing is told of it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from edge.core.call_events import facts
from events.calls import (
    Branch,
    BranchFinal,
    BranchProvisional,
    BranchStarted,
    By,
    CallAnswered,
    CallAttempted,
    CallCancelled,
    CallEnded,
    CallEvent,
    CallFailed,
    CallRedirected,
    CallRefreshed,
    CallRinging,
    CallTransferred,
    MessageAttempted,
    MessageDelivered,
    MessageFailed,
)
from events.limits import PHRASE, URI
from sipcore.causes import Cause, cause_of
from sipcore.message import Request, Response
from sipcore.session_timer import REFRESHES, session_expires

TOLD = frozenset({"INVITE", "MESSAGE"})
"""Methods outside a dialog of which something is told."""
TOLD_IN_DIALOG = frozenset({"BYE", "INVITE", "UPDATE", "REFER"})
CHALLENGES = (401, 407)
EARLY_DIALOG_TERMINATED = 199
"""RFC 6228: nobody rings by that."""
CODES = 8
"""Different provisional responses of one branch that are told."""


class Whereto(NamedTuple):
    """Where a branch goes."""

    contact: str
    """Its Request-URI."""
    source: str
    """`192.0.2.9:5060`."""
    transport: str
    owner: str = ""
    """The edge whose flow it is, if another."""
    gateway: str = ""
    q: float = 1.0


NOWHERE = Whereto("", "", "")


class Heard(NamedTuple):
    """A branch's response."""

    at: int
    branch: str
    response: Response
    ours: bool


Tell = Callable[[CallEvent], None]


class _Teller:
    """Makes events of one call; each names its fields where it is made, for mappings of them would have to be made."""

    __slots__ = ("_call_id", "_cseq", "_edge", "_from_tag", "_request", "_to")

    def __init__(self, tell: Tell, edge: str, request: Request, from_tag: str, cseq: int) -> None:
        self._to = tell
        self._edge = edge
        self._request = request
        self._call_id, self._from_tag, self._cseq = (
            facts.clean(request.call_id, facts.LINE),
            facts.clean(from_tag, facts.LINE),
            cseq,
        )


class Telling(_Teller):
    """Tells of one INVITE or MESSAGE outside a dialog."""

    __slots__ = (
        "_answered", "_at", "_begun", "_branches", "_cancel", "_codes", "_ended", "_heard", "_held", "_is_call",
        "_peer", "_rang", "_source", "_transport", "callee", "caller", "targets",
    )  # fmt: skip

    def __init__(
        self, tell: Tell, edge: str, request: Request, at: int, source: str, transport: str, *, peer: bool
    ) -> None:
        """`source` is whence it came, `host:port`; `peer`: whether that is a listed peer."""
        super().__init__(tell, edge, request, request.from_.tag or "", request.cseq.number)
        self._at = at
        self._is_call = request.method == "INVITE"
        self._source, self._transport, self._peer = source, transport, peer
        self._begun = self._rang = self._ended = False
        self._branches: dict[str, Whereto] = {}
        self._codes: dict[str, list[int]] = {}
        self._heard: list[tuple[Response, str]] = []
        """Final responses, and the latest provisional one, each with its branch."""
        self._held: Heard | None = None
        """Not told of yet: if it goes up as it is, what goes up tells it."""
        self._answered: set[str] = set()
        """Tags of the dialogs that are told of."""
        self._cancel: Cause | None = None
        self.caller = ""
        """The AOR of whoever authenticated, once known."""
        self.callee = ""
        """The AOR that is called, once known."""
        self.targets: Sequence[str] = ()
        """The contacts of the target set, once known."""

    def started(self, at: int, branch: str, whereto: Whereto) -> None:
        """The request was sent to one target."""
        self.settled()
        if not self._is_call:
            self._begin()
            return
        self._branches[branch] = whereto
        contact, source, transport, owner, gateway, q = whereto
        contact = facts.clean(contact, URI)
        if self._begun:
            self._to(
                BranchStarted(
                    call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                    branch=branch, contact=contact, source=source, transport=transport, owner=owner, gateway=gateway,
                    q=q,
                )
            )  # fmt: skip
        else:
            self._begin(
                Branch(
                    at=at, branch=branch, contact=contact, source=source, transport=transport, owner=owner,
                    gateway=gateway, q=q,
                )
            )  # fmt: skip

    def heard(self, at: int, branch: str, response: Response, *, ours: bool = False) -> None:
        """A branch's response; `ours`: we made it, for nothing came, or nothing could be sent.

        Until `settled` it is not known whether it goes up as it is, which tells of it.
        """
        status = response.status
        if not self._is_call or status == 100:
            return
        self.settled()
        if self._heard and self._heard[-1][0].status < 200:
            self._heard.pop()
        self._heard.append((response, branch))
        if status < 200:
            codes = self._codes.setdefault(branch, [])
            if status in codes or len(codes) >= CODES:
                return
            codes.append(status)
        self._held = Heard(at, branch, response, ours)

    def settled(self) -> None:
        """It is decided what goes up: a response that was heard and does not go up is told by itself."""
        if self._held is None:
            return
        (at, branch, response, ours), self._held = self._held, None
        status, phrase, to_tag = response.status, facts.clean(response.reason, PHRASE), facts.to_tag_of(response)
        if 200 <= status < 300 and to_tag in self._answered:
            return  # a retransmission of what was told
        if status >= 200:
            reason, cause = facts.why(response)
            self._to(
                BranchFinal(
                    call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                    branch=branch, code=status, phrase=phrase, to_tag=to_tag, agent=facts.agent(response),
                    reason=reason, cause=cause, ours=ours,
                )
            )  # fmt: skip
        else:
            self._to(
                BranchProvisional(
                    call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                    branch=branch, code=status, phrase=phrase, to_tag=to_tag,
                )
            )  # fmt: skip

    def _goes_up(self, response: Response) -> bool:
        """Whether this was heard just now, so that nothing but what goes up need tell of it; else what was is told."""
        held = self._held
        if held is not None and held.response is response and not held.ours:
            self._held = None
            return True
        self.settled()
        return False

    def cancelled(self, cancel: Request) -> None:
        """The caller's CANCEL came: the call is cancelled if a 487 goes up."""
        self._cancel = cause_of(cancel)

    def up(self, at: int, response: Response) -> None:
        """A response goes to the caller: one that was heard, or one that we made."""
        status = response.status
        if status == 100 or status in CHALLENGES or (self._ended and (status >= 300 or not self._is_call)):
            return
        if status >= 200:
            self._begin()
            self._ended = True
            self._final(at, response, self._branch_of(response))
            self._heard.clear()  # nothing else that came before goes up; messages are large, and the context lasts
        elif self._is_call and not self._rang and status != EARLY_DIALOG_TERMINATED:
            self._begin()
            self._rang = True
            self._goes_up(response)
            self._to(
                CallRinging(
                    call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                    to_tag=facts.to_tag_of(response), code=status, branch=self._branch_of(response),
                    phrase=facts.clean(response.reason, PHRASE),
                )
            )  # fmt: skip

    def _branch_of(self, response: Response) -> str:
        return next((branch for heard, branch in reversed(self._heard) if heard is response), "")

    def _begin(self, first: Branch | None = None) -> None:
        if self._begun:
            return
        self._begun = True
        request = self._request
        from_uri, to_uri = facts.uris(request)
        dialled, agent = facts.clean(request.uri, URI), facts.agent(request)
        caller, callee = facts.clean(self.caller, URI), facts.clean(self.callee, URI)
        if not self._is_call:
            self._to(
                MessageAttempted(
                    call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=self._at, edge=self._edge,
                    from_uri=from_uri, to_uri=to_uri, dialled=dialled, caller=caller, callee=callee,
                    source=self._source, transport=self._transport, agent=agent,
                )
            )  # fmt: skip
            return
        asserted = request.values("p-asserted-identity") if self._peer else []
        self._to(
            CallAttempted(
                call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=self._at, edge=self._edge,
                from_uri=from_uri, to_uri=to_uri, dialled=dialled, caller=caller,
                asserted=facts.uri(asserted[0]) if asserted else "", callee=callee,
                targets=tuple([facts.clean(each, URI) for each in self.targets[: facts.TARGETS]]),
                more_targets=max(0, len(self.targets) - facts.TARGETS),
                source=self._source, transport=self._transport, agent=agent, codecs=facts.codecs_of(request),
                peer=self._peer, first=first,
            )
        )  # fmt: skip

    def _final(self, at: int, response: Response, branch: str) -> None:
        status, to_tag, phrase = response.status, facts.to_tag_of(response), facts.clean(response.reason, PHRASE)
        if not self._is_call:
            if status < 300:
                self._to(
                    MessageDelivered(
                        call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                        code=status,
                    )
                )  # fmt: skip
            else:
                self._to(
                    MessageFailed(
                        call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                        code=status, phrase=phrase,
                    )
                )  # fmt: skip
        elif status < 300:
            if to_tag in self._answered:
                return  # a retransmission
            self._answered.add(to_tag)
            self._goes_up(response)
            there = self._branches.get(branch, NOWHERE)
            self._to(
                CallAnswered(
                    call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                    to_tag=to_tag, code=status, phrase=phrase, branch=branch, contact=facts.clean(there.contact, URI),
                    source=there.source, transport=there.transport, agent=facts.agent(response),
                    codecs=facts.codecs_of(response), gateway=there.gateway, session_expires=session_expires(response),
                )
            )  # fmt: skip
        elif status < 400:
            self.settled()
            self._to(
                CallRedirected(
                    call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                    code=status, to_tag=to_tag, contacts=facts.contacts(response),
                )
            )  # fmt: skip
        elif status == 487 and self._cancel is not None:
            self.settled()
            text, cause = self._cancel
            self._to(
                CallCancelled(
                    call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                    to_tag=to_tag, reason=facts.clean(text, URI), cause=cause,
                )
            )  # fmt: skip
        else:
            agent = facts.agent(response) if self._goes_up(response) else ""
            reason, cause = facts.why(response)
            self._to(
                CallFailed(
                    call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                    code=status, phrase=phrase, to_tag=to_tag, branch=branch, agent=agent, reason=reason, cause=cause,
                )
            )  # fmt: skip


class InDialog(_Teller):
    """Tells of one request within a dialog that a Record-Route token of ours proves."""

    __slots__ = ("_by", "_callee_tag")

    def __init__(self, tell: Tell, edge: str, request: Request, invite: int, *, to_callee: bool) -> None:
        """`invite`: the CSeq number of the INVITE, by the token; `to_callee`: whether the caller sent the request."""
        tags = (request.from_.tag or "", facts.to_tag_of(request))
        caller_tag, callee_tag = tags if to_callee else tags[::-1]
        super().__init__(tell, edge, request, caller_tag, invite)
        self._by: By = "caller" if to_callee else "callee"
        self._callee_tag = facts.clean(callee_tag, facts.LINE)

    def came(self, at: int, begun: int, transport: str) -> None:
        """The request came; `begun`: when the INVITE passed, by the token. A BYE ends the call, whatever answers it."""
        if self._request.method != "BYE":
            return
        caller, callee = facts.uris(self._request)
        if self._by == "callee":
            caller, callee = callee, caller
        reason, cause = facts.why(self._request)
        self._to(
            CallEnded(
                call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                to_tag=self._callee_tag, by=self._by, reason=reason, cause=cause, begun=begun, caller_uri=caller,
                callee_uri=callee, transport=transport,
            )
        )  # fmt: skip

    def started(self, at: int, branch: str, whereto: Whereto) -> None:
        """Branches within a dialog are not told of."""

    def heard(self, at: int, branch: str, response: Response, *, ours: bool = False) -> None:
        """Nor what they answer."""

    def settled(self) -> None:
        """Nothing is held back."""

    def cancelled(self, cancel: Request) -> None:
        """Nor that one is given up."""

    def up(self, at: int, response: Response) -> None:
        """A response goes back: a 2xx to a session refresh request, or to a REFER.

        Without Session-Expires the session has no timer from now on, whatever it had (RFC 4028 section 7.2).
        """
        if not 200 <= response.status < 300:
            return
        method, number = self._request.method, self._request.cseq.number
        if method == "REFER":
            target = facts.uri(self._request.first("refer-to") or "")
            self._to(
                CallTransferred(
                    call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                    to_tag=self._callee_tag, by=self._by, refer=number, target=target,
                )
            )  # fmt: skip
        elif method in REFRESHES:
            seconds = session_expires(response)
            self._to(
                CallRefreshed(
                    call_id=self._call_id, from_tag=self._from_tag, cseq=self._cseq, at=at, edge=self._edge,
                    to_tag=self._callee_tag, by=self._by, refresh=number, session_expires=seconds,
                )
            )  # fmt: skip
