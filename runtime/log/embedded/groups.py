"""Consumer groups inside one process: who of the members has which partition.

Partitions go round to members in the order they joined. Only those that change hands are revoked.
"""

from collections.abc import Callable
from weakref import WeakKeyDictionary

from runtime.store import EmbeddedStore


class Member:
    """One subscription's place in its group."""

    def __init__(self, on_assigned: Callable[[int], None], on_revoked: Callable[[int], None]) -> None:
        self.assigned: frozenset[int] = frozenset()
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked

    def keep(self, partitions: frozenset[int]) -> None:
        """Gives up all others."""
        gone = self.assigned - partitions
        self.assigned &= partitions
        for partition in sorted(gone):
            self._on_revoked(partition)

    def take(self, partitions: frozenset[int]) -> None:
        """Takes over what is new."""
        new = partitions - self.assigned
        self.assigned |= partitions
        for partition in sorted(new):
            self._on_assigned(partition)


class Groups:
    """The groups of one store, by topic and name."""

    def __init__(self) -> None:
        self._members: dict[tuple[str, str], list[Member]] = {}

    def join(self, topic: str, group: str, member: Member, partitions: int) -> None:
        """Adds a member and shares the partitions anew."""
        members = self._members.setdefault((topic, group), [])
        members.append(member)
        self._share(members, partitions)

    def leave(self, topic: str, group: str, member: Member, partitions: int) -> None:
        """Takes a member out; it keeps nothing."""
        members = self._members.get((topic, group), [])
        if member in members:
            members.remove(member)
            member.keep(frozenset())
            self._share(members, partitions)

    def _share(self, members: list[Member], partitions: int) -> None:
        shares = [frozenset(range(place, partitions, len(members))) for place in range(len(members))]
        # Everything is given up before anything is taken: no partition has two owners.
        for member, share in zip(members, shares, strict=True):
            member.keep(share)
        for member, share in zip(members, shares, strict=True):
            member.take(share)


_groups: WeakKeyDictionary[EmbeddedStore, Groups] = WeakKeyDictionary()


def groups_of(store: EmbeddedStore) -> Groups:
    """The groups that all logs on this store share."""
    return _groups.setdefault(store, Groups())
