"""Section `registrar` of the configuration: the policy of registration, and how often snapshots are written."""

from typing import Literal

import msgspec

from runtime.errors import ConfigError


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `registrar`; times in seconds."""

    min_expires: int = 60
    """A shorter request below one hour is refused with 423 (RFC 3261 section 10.3, step 7)."""
    max_expires: int = 300
    """No more is ever granted."""
    default_expires: int = 300
    """Taken as requested where a REGISTER names no time."""
    expires_deviation: int = 10
    """Percent by which the time granted to a refresh may be less than it would be, drawn anew each time, so that phones
    that came back at once do not refresh at once for ever; 0: all get the same (RFC 3261 section 10.3, step 7 lets a
    registrar shorten). What a phone asks for first it gets whole."""
    max_contacts: int = 10
    """Bindings of one AOR."""
    overflow: Literal["refuse", "replace-oldest"] = "replace-oldest"
    """One binding too many: with `replace-oldest` one leaves (`deactivated`), of two with one Call-ID and User-Agent
    the older (a phone that restarted from another port), else the one that was not refreshed for longest; with
    `refuse`, 403."""
    grace: int = 2
    """How long a binding outlives its time, for a refresh that is under way."""
    snapshot_interval: float = 10.0
    """How often changed AORs are written to `bindings`; what is behind is replayed after a restart."""

    def __post_init__(self) -> None:
        """Raises ConfigError for values that contradict each other."""
        bounds: tuple[tuple[str, bool, str], ...] = (
            ("min_expires", self.min_expires >= 1, "must be at least 1"),
            ("max_expires", self.max_expires >= self.min_expires, "must not be below min_expires"),
            ("max_expires", self.max_expires < 2**31, "must be below 2**31"),
            (
                "default_expires",
                self.min_expires <= self.default_expires <= self.max_expires,
                "must be between min_expires and max_expires",
            ),
            ("expires_deviation", 0 <= self.expires_deviation <= 50, "must be between 0 and 50 percent"),
            ("max_contacts", 1 <= self.max_contacts <= 100, "must be between 1 and 100"),
            ("grace", 0 <= self.grace <= 60, "must be between 0 and 60"),
            ("snapshot_interval", 0.1 <= self.snapshot_interval <= 600, "must be between 0.1 and 600"),
        )
        for key, holds, rule in bounds:
            if not holds:
                raise ConfigError(
                    f"RAMAL_REGISTRAR_{key.upper()} (or registrar.{key} in the file): {getattr(self, key)} {rule}"
                )
