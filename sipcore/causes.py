"""Why something ended: the Reason header (RFC 3326)."""

from typing import NamedTuple

from sipcore.errors import ParseError
from sipcore.grammar import parse_params, uint
from sipcore.message import Message


class Cause(NamedTuple):
    """What a message's Reason rows say."""

    text: str
    """All values, as sent."""
    q850: int
    """The cause of ITU-T Q.850, 1 to 127; 0: none."""


def cause_of(message: Message) -> Cause:
    """The reasons of a request or response; values that cannot be read have no cause."""
    if message.first("reason") is None:
        return Cause("", 0)
    values = message.values("reason")
    for value in values:
        protocol, _, rest = value.partition(";")
        if protocol.strip().upper() != "Q.850":
            continue
        try:
            given = dict(parse_params(f";{rest}")).get("cause")
        except ParseError:
            continue
        number = uint(given or "", 127)
        if number:
            return Cause(", ".join(values), number)
    return Cause(", ".join(values), 0)
