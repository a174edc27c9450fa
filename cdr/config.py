"""Section `cdr` of the configuration."""

import msgspec

from runtime.config import Number, Seconds, WholeSeconds


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `cdr`."""

    longest_setup: WholeSeconds = 300
    """Seconds after the last event of a call that is not answered yet until it is closed: its edge has died."""
    longest_call: WholeSeconds = 86_400
    """Seconds after its answer until a call without a session timer is closed if no BYE came; no edge carries one on
    for longer than a day."""
    grace: Number = 60
    """Seconds after the end of a session timer until the call is closed."""
    close_every: Seconds = 10.0
    """Seconds between two looks for such calls."""
    remembered: Number = 20_000
    """Calls of which the events are kept in memory (about 3 kB each); of others the tables are asked."""


class Analytics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `analytics`: figures by minute and hour."""

    enabled: bool = True
    """Whether `ramal up` and `ramal stack` reckon figures."""
    grace: WholeSeconds = 600
    """Seconds after the end of a minute until it is closed; what comes later counts as late and nothing else."""
    publish_every: Seconds = 5.0
    """Seconds between two looks for figures that have changed."""
    store_every: Seconds = 30.0
    """Seconds between two writes of what has changed into the tables of Faust; what is behind is read again."""
    horizon: WholeSeconds = 7200
    """Seconds back in the log at which figures begin where nothing is stored: longer than registrations last."""
    directory: str = ""
    """Of Faust's tables (RocksDB); without it a temporary one, filled from the log at each start."""
