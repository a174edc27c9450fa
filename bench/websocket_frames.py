"""What a message by WebSocket costs with our frames and with wsproto's, one after the other in one process.

`python bench/websocket_frames.py` (needs `pip install wsproto`, which nothing else of ours does): a client's REGISTER
and its answer, as octets of frames in and out; microseconds of CPU, the least of ROUNDS.
"""

import time

from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from edge.transport.websocket_frames import FrameReader, Opcode, frame, unmask

ROUNDS, MESSAGES = 30, 2000
KEY = b"\x12\x34\x56\x78"
SIZE = 700
TEXT = ("REGISTER sip:example.test SIP/2.0\r\n" + "x" * SIZE)[:SIZE].encode()
FRAME = bytes((0x81, 0x80 | 126)) + SIZE.to_bytes(2, "big") + KEY + unmask(KEY, TEXT)


def ours() -> None:
    """Our reader and our frames."""
    reader = FrameReader()
    for _ in range(MESSAGES):
        messages, _ = reader.feed(FRAME, 1)
        frame(Opcode.TEXT, messages[0].data)


def wsprotos() -> None:
    """Those of wsproto, past its handshake."""
    connection = Connection(ConnectionType.SERVER)
    for _ in range(MESSAGES):
        connection.receive_data(FRAME)
        for event in connection.events():
            connection.send(TextMessage(data=event.data))  # type: ignore[union-attr]  # no other event comes


def main() -> None:
    """Prints the least of each."""
    least = {"ours": 1e9, "wsproto": 1e9}
    for _ in range(ROUNDS):
        for name, way in (("ours", ours), ("wsproto", wsprotos)):
            begin = time.process_time()
            way()
            least[name] = min(least[name], (time.process_time() - begin) / MESSAGES * 1e6)
    print(", ".join(f"{name} {cost:.1f} us a message in and out" for name, cost in least.items()))  # noqa: T201  # its result


if __name__ == "__main__":
    main()
