"""Section `locator` of the configuration."""

import msgspec

from runtime.config import Number


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `locator`."""

    remembered: Number = 1_000_000
    """Bindings of a partition of which the last place is kept in memory (about 250 bytes each); of others the
    tables are asked before each batch."""
    history_days: Number = 90
    """How many days `registration_history` keeps a registration after its end; 0: for ever. `ramal at` says from when
    it knows."""
