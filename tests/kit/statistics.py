"""Records of registrations as statistics read them."""

from events.registrations import AorState, Binding, BindingsRecorded
from events.wire import encode


def registered(aor: str, *phones: tuple[str, str]) -> bytes:
    """The truth that an AOR has these bindings, each by its transport and User-Agent."""
    bindings = tuple(
        Binding(
            id=number,
            contact=f"sip:{number}@192.0.2.1",
            call_id="c",
            cseq=1,
            expires=0,
            granted=300,
            created=0,
            updated=0,
            socket=f"{transport}:192.0.2.2:5060" if transport else "",
            user_agent=agent,
        )
        for number, (transport, agent) in enumerate(phones)
    )
    return encode(BindingsRecorded("id", aor, aor, (), AorState(0, bindings)))
