"""The peer broke the protocol: one exception, which knows the response to give."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipcore.message import Request, Response


class ParseError(ValueError):
    """Bytes or text that are not SIP as we accept it.

    `reason` and `name` are constants of ours, never the peer's text: safe to send, log and count by.
    """

    def __init__(self, name: str, reason: str, status: int | None = 400) -> None:
        super().__init__(reason)
        self.name = name
        """The drop's name, such as `bad-cseq`."""
        self.reason = reason
        """The reason phrase to answer with."""
        self.status = status
        """The final response to give; None: none may be given (a response, an ACK, no SIP at all)."""
        self.message: Request | Response | None = None
        """What could be read, of a request enough to build the response; its parts may raise ParseError again."""
