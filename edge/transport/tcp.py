"""TCP and TLS: a byte stream, cut into messages (RFC 3261 section 18.3)."""

from edge.transport.connections import Connection, Streams
from edge.transport.proxy_protocol import Parties, begins
from edge.transport.tls import proves
from runtime.metrics import dropped
from sipcore.message import Request, Response
from sipcore.parser import StreamParser


class TcpConnection(Connection):
    """One connection: octets in, messages to the core."""

    def __init__(
        self,
        streams: Streams,
        transport: str,
        place: str,
        parties: Parties,
        *,
        dialled: bool = False,
        name: str = "",
    ) -> None:
        """`name`: the SIP domain that the peer must prove to be (RFC 5922)."""
        super().__init__(streams, transport, place, parties, dialled=dialled)
        self.name = name
        self._parser = StreamParser()

    def acceptable(self) -> bool:
        """Whether the certificate is that of the domain asked for; any that is valid, where none was."""
        if not self.name or self._transport is None:
            return True
        if proves(self._transport.get_extra_info("peercert"), self.name):
            return True
        dropped("tls-wrong-domain")
        return False

    def read(self, data: bytes, most: int) -> int:
        """Cuts octets into messages."""
        if not self.heard and begins(data):
            dropped("proxy-protocol-refused")
            self.abort()
            return 1
        parser = self._parser
        items = parser.feed(data, most)
        self.more = parser.more
        if items:
            self.take(items, message=self.heard or any(isinstance(item, Request | Response) for item in items))
        if parser.closed:
            dropped("stream-broken")
            self.streams.receiver.flush()
            self.close()
        else:
            self.wait(pending=parser.pending, new=bool(items))
        return parser.spent

    def write(self, data: bytes) -> None:
        """Writes a message; it frames itself by its Content-Length."""
        self.put(data)
