"""Windowed statistics: what is on `stats`, keyed by domain. No record names a person.

Each source partition has its own figures, absolute ones: whoever adds the last records of all partitions of a window
has the system's. Of two records of one window and partition the one with the greater `through` counts, of equal ones
the later. Windows are a minute or an hour of UTC; an hour's record is the sum of its minutes, and what it says of an
instant is said of the last one.
"""

from typing import Annotated, Literal

import msgspec

from events.calls import Millis

Count = Annotated[int, msgspec.Meta(ge=0)]
Counts = dict[str, Count]
Seconds = Literal[60, 3600]
"""Of a window."""


class CallStatistics(
    msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type", tag="ramal.CallStatistics"
):
    """The calls of one window by domain and gateway.

    A call counts in the window of its INVITE; `ended` and `talk_ms` in that of its end; `concurrent` at the window's
    end.
    """

    start: Millis
    """Of the window, milliseconds in the log's time."""
    seconds: Seconds
    domain: str
    """The called user's domain; of a call to elsewhere the authenticated caller's; "" for neither."""
    gateway: str = ""
    partition: Count
    """Of `calls`."""
    through: int
    """Every record of the partition below this offset is in the figures."""
    attempts: Count = 0
    answered: Count = 0
    delivered: Count = 0
    """Calls that reached a terminal: answered, rang, busy, declined or unavailable (480)."""
    failed: Count = 0
    cancelled: Count = 0
    redirected: Count = 0
    to_users: Count = 0
    """Attempts to users of ours, once their outcome is known."""
    missed: Count = 0
    """Of those."""
    ended: Count = 0
    """Answered calls that ended in this window."""
    talk_ms: Count = 0
    """Of those, from answer to end."""
    concurrent: Count = 0
    """Calls that were answered and had not ended at the end of the window; now, while it lasts."""
    post_dial: Counts = {}
    """Calls by post-dial delay, INVITE to first ringing (or answer): by the upper bound of their bucket in
    milliseconds; bounds grow by 4 %, so a quantile is within 2 % of the exact one, or 1 ms."""
    late: Count = 0
    """Events that came in this window, too late for theirs."""


class RegistrationStatistics(
    msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type", tag="ramal.RegistrationStatistics"
):
    """Bindings that are registered at the end of a window; now, while it lasts."""

    start: Millis
    seconds: Seconds
    domain: str
    partition: Count
    """Of `registrations`."""
    through: int
    online: Count = 0
    transports: Counts = {}
    """By transport of the phone's flow."""
    agents: Counts = {}
    """By product name of User-Agent, without its version; the rarest of more than 50 as `other`."""


class LoginStatistics(
    msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type", tag="ramal.LoginStatistics"
):
    """Failed log-ins of a window, as `audit` has them: of an attack only a share is written there."""

    start: Millis
    seconds: Seconds
    domain: str
    """The realm."""
    partition: Count
    """Of `audit`."""
    through: int
    failed: Count = 0
    reasons: Counts = {}
    """By reason, `locked out` among them."""


Statistics = CallStatistics | RegistrationStatistics | LoginStatistics
