"""Two phones in a network of their own: each at its edge, one calls the other, who hangs up.

`python -m tests.containers.phones OWN EDGE EDGE NAME:PASSWORD NAME:PASSWORD` prints as JSON where the phones were, and
what they saw: for tests that have to run it in another network namespace. Any failure is a traceback.
"""

import json
import sys

from tests.kit.phone import SDP, Phone
from tests.kit.wire import UdpLink

DOMAIN = "example.test"


def call(own: str, edges: list[str], users: list[str]) -> dict[str, object]:
    """Registers both and makes the call; the INVITE's rows that name an address, and from where all came."""
    phones = []
    for edge, user in zip(edges, users, strict=True):
        host, port = edge.rsplit(":", 1)
        name, password = user.split(":")
        phones.append(Phone(UdpLink((host, int(port)), own), name, password, DOMAIN))
    caller, callee = phones
    for phone in phones:
        phone.register()
    calling = caller.invite(callee.aor)
    called = callee.incoming()
    invite = called.received
    called.respond(180)
    calling.hears(180)
    called.respond(200, body=SDP)
    answer = calling.hears(200)
    calling.ack()
    called.gets("ACK")
    called.request("BYE")
    bye = calling.gets("BYE")
    calling.respond(200)
    called.hears(200)
    rows = [f"{name}: {value}" for message in (invite, answer, bye) for name, value in message.rows]
    return {
        "phones": [list(phone.link.local) for phone in phones],
        "rows": [row for row in rows if row.partition(":")[0] in ("via", "record-route", "path", "contact", "route")],
        "uri": invite.uri,
        "from": sorted({f"{h}:{p}" for each in phones for h, p in each.requests_from | each.responses_from}),
    }


if __name__ == "__main__":
    json.dump(call(sys.argv[1], sys.argv[2:4], sys.argv[4:6]), sys.stdout)
