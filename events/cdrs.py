"""What is on `cdrs`: one record a call, once it has ended; keyed by Call-ID.

A record that is corrected later (an event came late) is published again: the last one of a call counts, and the
CloudEvents id tells whether two are the same.
"""

from typing import Literal

import msgspec

from events.calls import Cause, Millis, Number
from events.personal import Name, Person, Place

Outcome = Literal["answered", "failed", "cancelled", "redirected"]
HungUp = Literal["", "caller", "callee", "timeout"]


class CallRecord(
    msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag_field="type", tag="ramal.CallRecord"
):
    """A call from its INVITE to its end. Times are milliseconds in the log's time; 0: it did not happen."""

    call_id: Name
    from_tag: str
    cseq: Number
    outcome: Outcome
    attempted: Millis
    to_tag: str = ""
    caller: Person = ""
    """AOR, as authenticated; else the URI that a peer asserts, or that of From."""
    callee: Person = ""
    """AOR; else the URI of To."""
    ours: bool = False
    """Whether the callee is a user of ours."""
    dialled: Person = ""
    answered_by: Place = ""
    """The contact that answered."""
    rang: Millis = 0
    answered: Millis = 0
    ended: Millis = 0
    setup_ms: int = 0
    """From the INVITE to the answer; of a call without one, to its end."""
    talk_ms: int = 0
    """From the answer to the end."""
    code: int = 0
    """The final response to the INVITE; 0: none is known."""
    phrase: str = ""
    reason: str = ""
    """The Reason header of whoever ended it (RFC 3326)."""
    cause: Cause = 0
    """Q.850 cause; 0: none."""
    hung_up: HungUp = ""
    """Who ended an answered call; `timeout`: nobody that we heard of."""
    missed: bool = False
    """Whether the callee has missed it: see docs/analysts.md."""
    edges: tuple[str, ...] = ()
    source: Place = ""
    caller_transport: str = ""
    callee_transport: str = ""
    caller_agent: str = ""
    callee_agent: str = ""
    codecs: tuple[str, ...] = ()
    """Of the answer; else of the offer."""
    gateway: str = ""
    branches: int = 0
    """How many phones (or gateways) were tried."""
    transferred_to: Person = ""
    session_expires: Number = 0
    incomplete: bool = False
    """Whether an event of its beginning is missing: some of the above is unknown."""
    estimated: bool = False
    """Whether the end was not heard but is taken from the session timer or the longest call."""
