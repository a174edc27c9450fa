"""What a worker knows of a partition of its own."""

import asyncio
import dataclasses


@dataclasses.dataclass(slots=True, eq=False)
class Place:
    """A partition that is ours, from assignment to revocation."""

    partition: int
    restoring: "asyncio.Task[None] | None" = None
    running: bool = False
    stopped: str = ""
    """Why it waits for a person."""
    failures: int = 0
    cause: str = ""
    """Why its records could not be handled; "" once some were."""
    next: int = 0
    """Behind the last record that was handled; of one that is being restored, nothing is known."""
    end: int | None = None
    """The partition's end when it was first begun."""
    caught_up: bool = False
    singly_below: int = 0
    """Records below this offset are delivered one by one: one of them raised."""
    culprits: set[int] = dataclasses.field(default_factory=set)
    """Offsets that are dead letters already."""

    def lacks(self) -> str:
        """Why it does not serve yet, or no more; "" while it does."""
        if self.stopped:
            return f"is stopped: {self.stopped}"
        if not self.running:
            return f"is being restored: {self.cause}" if self.cause else "is being restored"
        if self.cause:
            return f"is tried again: {self.cause}"
        return "" if self.caught_up else "is catching up"
