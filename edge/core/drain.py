"""What an edge does that is asked to end: calls that begin go to another edge, those that ring are waited for. PURE.

A phone on UDP cannot be told to go elsewhere: behind a balancer its flow leads here for as long as we are there. So a
new INVITE is handed to a live edge, as what is its own would be; that edge answers by our flow while we are there, and
from its own address afterwards. REGISTERs are answered as ever: whoever gets the next one owns the flow. Where there is
no other edge, calls begin here: nobody else can take them.
"""

import re
from zlib import crc32

from edge.core.actions import Forward
from edge.core.answers import Answers
from edge.core.arrival import Arrival
from edge.core.flow import Flow
from edge.core.reach import Reach
from sipcore.proxy import has_to_tag

FINAL = re.compile(rb"SIP/2\.0 [2-6]\d\d ")
BRANCH = re.compile(rb";\s*branch=([^;,\s]+)", re.IGNORECASE)
OF_INVITE = re.compile(rb"\r\nCSeq\s*:\s*\d+\s+INVITE\s*\r\n", re.IGNORECASE)
HANDED = 20_000
"""Calls handed over that are remembered until their final response passes."""


class Draining:
    """One edge's end, from the moment when it is asked for."""

    def __init__(self, answers: Answers, reach: Reach) -> None:
        self._answers = answers
        self._reach = reach
        self._handed: set[tuple[Flow, bytes]] = set()
        """Calls of other edges whose callers are heard by us: flow and branch of the INVITE."""
        self.begun = False
        """Whether the end has been asked for."""

    def __len__(self) -> int:
        """How many calls that were handed over have no final response yet."""
        return len(self._handed)

    def hands_over(self, arrival: Arrival) -> bool:
        """Whether a new request is another edge's from now on. One that another edge has handed to us is not."""
        request, caller, live = arrival.request, arrival.caller, self._reach.neighbours
        if not self.begun or not live or caller.edge or request.method != "INVITE" or has_to_tag(request):
            return False
        # The same edge for the copies of an INVITE, and for the one with credentials.
        edge, boot = min(live, key=lambda life: crc32("/".join((*life, request.call_id)).encode("utf-8", "replace")))
        self._answers.drop("handed-over")
        self._answers.actions.forwards.append(Forward(edge, boot, caller.flow, request.encode()))
        if len(self._handed) < HANDED:
            self._handed.add((caller.flow, request.via.branch.encode("utf-8", "surrogateescape")))
        return True

    def track_response(self, data: bytes, flow: Flow) -> None:
        """Another edge sends a response by a flow of ours: a final one to an INVITE ends what is waited for."""
        if not self._handed or not FINAL.match(data) or not OF_INVITE.search(data):
            return
        branch = BRANCH.search(data)
        if branch is not None:
            self._handed.discard((flow, branch[1]))
