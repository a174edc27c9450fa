"""Section `cdr` of the configuration."""

import msgspec


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `cdr`."""

    longest_setup: int = 300
    """Seconds after the last event of a call that is not answered yet until it is closed: its edge has died."""
    longest_call: int = 86_400
    """Seconds after its answer until a call without a session timer is closed if no BYE came; no edge carries one on
    for longer than a day."""
    grace: int = 60
    """Seconds after the end of a session timer until the call is closed."""
    close_every: float = 10.0
    """Seconds between two looks for such calls."""
    remembered: int = 20_000
    """Calls of which the events are kept in memory (about 3 kB each); of others the tables are asked."""
