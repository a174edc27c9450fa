"""What can go wrong with what we need: `Unavailable` means 503 to a phone, and that we try again."""


class Unavailable(Exception):
    """Something we need is down or too slow; what was asked may or may not have happened."""


class LogUnavailable(Unavailable):
    """The log did not acknowledge in time."""


class PartitionAway(LogUnavailable):
    """A partition has taken nothing for a whole time-out, so that nobody waits for it again; others may take theirs."""


class Rebalancing(LogUnavailable):
    """The members of a consumer group are being told their partitions; what was asked has not happened."""


class Replaced(LogUnavailable):
    """Another process has joined a consumer group under our name; it has our place until it leaves."""


class LogRefused(Exception):
    """The log will never take this record (too large, invalid); nothing of it was written."""


class Fenced(Exception):
    """A later owner took over (transactional id, claim or position); stop writing there."""


class DatabaseUnavailable(Unavailable):
    """The database did not answer in time; a transaction may or may not have been committed."""


class PositionConflict(Exception):
    """The compare-and-set of a projection's position failed: another writer was there; nothing was written."""


class DatabaseRefused(Exception):
    """The database refuses these rows for what they are (too long, out of range); nothing was written."""


class ConfigError(Exception):
    """A setting is missing or wrong; the message names its key."""
