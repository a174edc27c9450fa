"""The log as authsvc's handler sees it, in memory."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from runtime.log.port import Append, Position


class Read(NamedTuple):
    """A record as read."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class MemoryLog:
    """What is appended, and a group that has committed `offsets`; four partitions a topic."""

    def __init__(self) -> None:
        self.appended: list[Append] = []
        self.offsets: dict[int, int] = {}
        self.grew = asyncio.Event()

    async def append(self, records: Sequence[Append]) -> list[Position]:
        self.appended.extend(records)
        self.grew.set()
        return [Position(record.partition, len(self.appended), 0) for record in records]

    async def partitions(self, topic: str) -> int:
        return 4

    async def committed(self, topic: str, group: str) -> dict[int, int]:
        return self.offsets

    async def until(self, count: int) -> None:
        """Waits for that many records."""
        while len(self.appended) < count:
            self.grew.clear()
            await self.grew.wait()
