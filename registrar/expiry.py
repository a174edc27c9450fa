"""The timer: asks, through the registrar's own command topic, for the end of what outlived its time.

The end itself is decided like any command, so it comes in log order with the refreshes. An AOR stays on
the agenda until the event is seen; a lost request is made again after `AGAIN_MS`.
"""

from events.commands import ExpireContacts
from events.topics import REGISTRAR_COMMANDS
from events.wire import cloud_event, encode
from registrar.decider import MEMORY_MS, is_over
from registrar.partition import Partition
from registrar.truths import SOURCE, decode_state
from runtime.log.port import Append

STUCK_MS = 600_000
"""Longer than any batch can be stuck here: who does not get on for a session time-out loses the partition."""
AGAIN_MS = 5_000
AT_ONCE = 2_000
"""AORs looked at per partition and tick; the rest wait for the next second."""
KIND = "ramal.ExpireContacts"


def expire(partition: Partition, now: int) -> list[Append]:
    """Requests for what is over at `now`; forgets AORs of which nothing matters any more."""
    requests: list[Append] = []
    for aor in partition.agenda.take(now, AT_ONCE):
        encoded = partition.states.get(aor)
        if encoded is None:
            continue
        state = decode_state(encoded)
        # Over by our clock is not enough: commands from before may wait to be decided, a copy among them. But where
        # none comes at all, it is after a while.
        if is_over(state, max(min(now, partition.time), now - STUCK_MS)):
            partition.drop(aor)
            continue
        due = partition.falls_due(state)
        if due > now or not state.bindings:
            partition.agenda.put(aor, due if due > now else now + MEMORY_MS)
            continue
        partition.agenda.put(aor, now + AGAIN_MS)
        # The same binding's end asked for twice has the same id.
        id_ = f"expiry:{partition.number}:{partition.claim}:{due}:{state.bindings[0].id}"
        requests.append(
            Append(
                REGISTRAR_COMMANDS,
                partition.number,
                aor.encode(),
                encode(ExpireContacts(id_, aor)),
                cloud_event(KIND, SOURCE, id_),
            )
        )
    return requests
