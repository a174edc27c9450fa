"""Section `locator` of the configuration."""

import msgspec


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `locator`."""

    remembered: int = 100_000
    """Bindings of a partition of which the last place is kept in memory (about 250 bytes each); of others the
    tables are asked before each batch."""
