"""Drives a handler from a consumer group: restore on assignment, batches, commits, dead letters, an orderly end.

    assigned → restoring → running → revoked
                   ↑          │
                   └── lost ──┘        (backed off; the group may also assign the partition anew)

A partition's state is rebuilt in a task of its own, never inside the group's callback: there heartbeats
stand still, and two members would expel each other for ever. While a batch is in the handler's hands its
partitions are neither released nor restored. A batch that raises is delivered again after a restore, record
by record, so that only the culprit becomes a dead letter (or stops its partition).

Over 400 lines: deliveries, commits and restores move the same partitions through these states, between each other's
awaits.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Gauge

from runtime.errors import LogRefused, LogUnavailable, Rebalancing, Replaced, Unavailable
from runtime.handler import Handler, Lost, dead_letter
from runtime.lag import measure
from runtime.log.port import Batch, Log, OutOfRange, PartitionFault, Record, Subscription
from runtime.metrics import dropped
from runtime.places import Place

__all__ = ["Handler", "Lost", "Worker", "dead_letter"]

log = logging.getLogger("ramal.worker")

POLL_SECONDS = 1.0
COMMIT_SECONDS = 1.0
FIRST_BACKOFF, LAST_BACKOFF = 0.1, 2.0
MAX_RECORDS = 500
CULPRITS = 1000
"""Dead letters remembered per partition; should an older one come again, it is put aside again."""

_STOPPED = Gauge("ramal_stopped_partitions", "Partitions that wait for a person (see the log).", ["topic"])


class Worker:
    """One member of a handler's consumer group."""

    def __init__(
        self,
        log: Log,
        handler: Handler,
        *,
        gather: float = 0.0,
        most: int = MAX_RECORDS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`gather`: the least seconds from one batch to the next, where nobody waits for what the handler does.

        `most`: records of one batch; one that is full is followed at once. `jitter` gives numbers from 0 to 1.
        """
        self._log = log
        self._handler = handler
        self._gather, self._most = gather, most
        self._jitter = jitter
        self._places: dict[int, Place] = {}
        self._in_hand: frozenset[int] = frozenset()
        self._hand_free = asyncio.Event()
        self._release_later: set[int] = set()
        self._ending: set[asyncio.Task[None]] = set()
        """Cancelled restores that still have to release their partition."""
        self._commits: dict[int, int] = {}
        self._committed_at = 0.0
        self._away = ""
        self._stopping = False
        self._loop_task: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None
        self._stopped_gauge = _STOPPED.labels(handler.topic)

    async def run(self) -> None:
        """Works until `stop`; starts once the log is there."""
        if self._stopping:
            return
        topic, group = self._handler.topic, self._handler.group
        self._loop_task = asyncio.create_task(self._work(), name=f"worker {topic}")
        measuring = asyncio.create_task(measure(self._log, topic, group, self._places), name=f"lag {topic}")
        try:
            await asyncio.wait({self._loop_task})
        finally:
            self._loop_task.cancel()
            measuring.cancel()
        if not self._loop_task.cancelled():
            self._loop_task.result()

    async def stop(self, deadline: float) -> None:
        """Finishes the batch in hand, commits and leaves the group, within `deadline` seconds whatever hangs."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        task = self._loop_task
        if task and not task.done():
            if not self._in_hand:
                task.cancel()
            await asyncio.wait({task}, timeout=deadline * 0.6)
            task.cancel()
            await asyncio.wait({task}, timeout=deadline * 0.1)
        if self._subscription:
            try:
                async with asyncio.timeout_at(loop.time() + (until - loop.time()) / 2):
                    await self._commit()
            except TimeoutError:
                log.warning("the last offsets were not committed in time", extra=self._extra())
            await self._subscription.stop(max(0.1, until - loop.time() - 0.1))
        for partition in tuple(self._places):
            self._revoked(partition)
        if self._ending:
            await asyncio.wait(self._ending, timeout=max(0.05, until - loop.time()))

    def assigned(self) -> frozenset[int]:
        """The partitions that are ours, whatever state they are in."""
        return frozenset(self._places)

    def caught_up(self) -> bool:
        """Whether every assigned partition has reached the end it had when it was first begun."""
        joined = self._subscription is not None and self._subscription.joined()
        return joined and all(place.caught_up for place in self._places.values())

    def not_ready(self) -> list[str]:
        """Why not, one sentence each; empty when ready."""
        status = self._status()
        return [f"{self._handler.topic}: {why}" for reasons in status.values() for why in reasons if why]

    def status(self) -> dict[str, str]:
        """By what it needs, why that is away; "" while it is there."""
        return {need: "; ".join(reasons) for need, reasons in self._status().items()}

    def _status(self) -> dict[str, list[str]]:
        joined = self._subscription is not None and self._subscription.joined()
        partitions = [f"partition {number} {why}" for number, p in sorted(self._places.items()) if (why := p.lacks())]
        group = [] if joined else ["has not joined its group yet"]
        return {"log": [self._away] if self._away else [], "group": group, "partitions": partitions}

    async def dead_letter(self, record: Record, cause: str) -> None:
        """Puts a record that nobody can handle aside for people; raises LogUnavailable."""
        log.error(
            "record put aside in `dead`",
            extra=self._extra(partition=record.partition, offset=record.offset, cause=cause[:200]),
        )
        with contextlib.suppress(LogRefused):  # a key as large as a record: only the count is left
            await self._log.append([dead_letter(self._handler.topic, record, cause)])
        dropped("dead-letter")

    # The loop

    async def _work(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                subscription = self._subscription or self._subscribe()
                batch = await subscription.poll(POLL_SECONDS, self._most)
                came = asyncio.get_running_loop().time()
                if batch:
                    await self._deliver(batch)
                await self._commit_when_due()
                failures = 0
                self._log_is_back()
                if self._gather and batch and sum(map(len, batch.values())) < self._most:
                    await asyncio.sleep(came + self._gather - asyncio.get_running_loop().time())
            except Unavailable as error:
                self._log_is_away(error)
                failures += 1
                await self._back_off(failures)
            except OutOfRange as error:  # the log has lost its end: only a restore can tell what that means
                self.give_up({error.partition}, error.reason)
            except PartitionFault as error:
                self._stop_partition(error.partition, error.reason)
            except Exception:
                log.exception("the worker failed; it goes on", extra=self._extra())
                failures += 1
                await self._back_off(failures)

    def _subscribe(self) -> Subscription:
        handler = self._handler
        self._subscription = self._log.subscribe(handler.topic, handler.group, self._assigned, self._revoked)
        return self._subscription

    async def _deliver(self, batch: Batch) -> None:
        whole: dict[int, Sequence[Record]] = {}
        for partition, records in batch.items():
            place = self._places.get(partition)
            if place is None or not place.running:
                continue
            if place.culprits:
                records = [record for record in records if record.offset not in place.culprits]
            if records and records[0].offset < place.singly_below:
                await self._deliver_singly(place, records)
            elif records:
                whole[partition] = records
            else:
                self._reached(place, batch[partition])
        if whole and not await self._hand_over(whole):
            for partition, records in whole.items():
                if place := self._places.get(partition):
                    place.singly_below = max(place.singly_below, records[-1].offset + 1)
            self.give_up(whole)

    async def _deliver_singly(self, place: Place, records: Sequence[Record]) -> None:
        for record in records:
            # Given up or revoked since: the rest comes again.
            if self._places.get(place.partition) is not place or not place.running or self._stopping:
                return
            if await self._hand_over({place.partition: [record]}):
                continue
            if not self._handler.dead_letters:
                self._stop_partition(place.partition, f"record {record.offset} cannot be handled")
                return
            try:
                await self.dead_letter(record, "the handler failed (see the log)")
                place.culprits.add(record.offset)
                while len(place.culprits) > CULPRITS:
                    place.culprits.remove(min(place.culprits))
            finally:
                self.give_up({place.partition})
            return

    async def _hand_over(self, batch: Batch) -> bool:
        """Has the handler handle a batch; False when it has a bug there."""
        self._in_hand = frozenset(batch)
        try:
            offsets = await self._handler.handle(batch)
        except Lost as error:
            offsets = error.offsets
            self._free_hand()
            for partition, reason in error.stopped.items():
                self._stop_partition(partition, reason)
            self.give_up(error.partitions - error.stopped.keys(), error.cause)
            batch = {p: records for p, records in batch.items() if p not in error.partitions}
        except Unavailable as error:
            log.warning("handling failed; trying again", extra=self._extra(cause=str(error)))
            self._free_hand()
            self.give_up(batch, str(error))
            return True
        except Exception:
            log.exception("a batch could not be handled; trying its records one by one", extra=self._extra())
            return False
        finally:
            self._free_hand()
        for partition, offset in offsets.items():
            if partition in self._places:
                self._commits[partition] = offset
        for partition, records in batch.items():
            if place := self._places.get(partition):
                place.failures, place.cause = 0, ""
                self._reached(place, records)
        return True

    def _free_hand(self) -> None:
        self._in_hand = frozenset()
        self._hand_free.set()
        for partition in self._release_later:
            self._handler.release(partition)
        self._release_later.clear()

    def _reached(self, place: Place, records: Sequence[Record]) -> None:
        place.next = records[-1].offset + 1
        if not place.caught_up and place.end is not None and place.next >= place.end:
            place.caught_up = True

    # Commits

    async def _commit_when_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._commits and now - self._committed_at >= COMMIT_SECONDS:
            self._committed_at = now
            await self._commit()

    async def _commit(self) -> None:
        """Commits what is pending; what cannot be committed now stays so, and nothing is lost but repetition."""
        if self._subscription is None or not self._commits:
            return
        offsets, self._commits = self._commits, {}
        try:
            await self._subscription.commit(offsets)
        except BaseException as error:
            self._commits = {**offsets, **self._commits}
            if not isinstance(error, LogUnavailable):
                raise
            if not isinstance(error, Rebalancing):
                self._log_is_away(error)

    # Partitions come and go

    def _assigned(self, partition: int) -> None:
        if partition in self._places:
            self._revoked(partition)
        self._places[partition] = place = Place(partition)
        self._restore_soon(place)

    def _revoked(self, partition: int) -> None:
        place = self._places.pop(partition, None)
        self._commits.pop(partition, None)
        if place is None:
            return
        if place.stopped:
            self._stopped_gauge.dec()
        self._close(place)

    def give_up(self, partitions: Iterable[int], cause: str = "") -> None:
        """Releases partitions of ours and restores them again after a while; people are told the `cause`."""
        for partition in partitions:
            place = self._places.get(partition)
            if place is None or not place.running:
                continue
            place.failures += 1
            place.cause = cause
            self._halt(place)
            self._restore_soon(place)

    def _stop_partition(self, partition: int, reason: str) -> None:
        place = self._places.get(partition)
        if place is None or place.stopped:
            return
        log.critical("partition stopped; it needs a person", extra=self._extra(partition=partition, cause=reason))
        self._stopped_gauge.inc()
        place.stopped = reason
        self._halt(place)

    def _halt(self, place: Place) -> None:
        if self._subscription:
            self._subscription.pause(place.partition)
        self._commits.pop(place.partition, None)
        self._close(place)

    def _close(self, place: Place) -> None:
        """Ends the restore, which then releases what it has made; or releases what is running."""
        if place.restoring:
            place.restoring.cancel()
            self._ending.add(place.restoring)
            place.restoring.add_done_callback(self._ending.discard)
            place.restoring = None
        elif place.running:
            place.running = False
            if place.partition in self._in_hand:
                self._release_later.add(place.partition)
            else:
                self._handler.release(place.partition)

    def _restore_soon(self, place: Place) -> None:
        before = {task for task in self._ending if task.get_name() == _task_name(self._handler, place)}
        place.restoring = asyncio.create_task(self._restore(place, before), name=_task_name(self._handler, place))

    async def _restore(self, place: Place, before: set["asyncio.Task[None]"]) -> None:
        """Restores until it succeeds; the task's end is either a running partition or a released one."""
        partition = place.partition
        if before:
            await asyncio.wait(before)
        while True:
            await self._back_off(place.failures)
            while partition in self._in_hand:
                self._hand_free.clear()
                await self._hand_free.wait()
            try:
                offset = await self._restored(place)
            except Unavailable as error:
                self._handler.release(partition)
                level = logging.WARNING if place.failures == 0 else logging.DEBUG
                log.log(level, "restoring failed; trying again", extra=self._extra(partition, cause=str(error)))
                place.cause = str(error)
            except PartitionFault as error:
                self._handler.release(partition)
                place.restoring = None
                self._stop_partition(partition, f"restoring: {error}")
                return
            except asyncio.CancelledError:
                self._handler.release(partition)
                raise
            except Exception:
                self._handler.release(partition)
                log.exception("restoring failed; trying again", extra=self._extra(partition))
            else:
                break
            place.failures += 1
        place.restoring = None
        place.running = True
        if self._subscription:
            self._subscription.begin(partition, offset)

    async def _restored(self, place: Place) -> int:
        """The offset to go on at, once the handler has its state and we know the partition's end.

        The group is asked first: who slept, woke up and found that another had written must not take the partition
        back before it has heard whose it is.
        """
        handler, partition = self._handler, place.partition
        if self._subscription:
            await self._subscription.confirm(partition)
        offset = await handler.restore(partition)
        bounds = await self._log.bounds(handler.topic, partition)
        if offset is None:
            offset = (await self._log.committed(handler.topic, handler.group)).get(partition, 0)
            if offset > bounds.end:  # nothing rests on it but where to go on
                extra = self._extra(partition, offset=offset, end=bounds.end)
                log.error("the log ends before what was handled here; going on at its end", extra=extra)
                offset = bounds.end
        if offset > bounds.end:
            raise OutOfRange(partition, offset, bounds.end)
        if 0 < offset < bounds.begin:
            log.error(
                "records were deleted before they were handled here",
                extra=self._extra(partition, offset=offset, begin=bounds.begin),
            )
        place.next = offset
        if place.end is None:
            place.end = bounds.end
        if offset >= bounds.end:  # nothing is left that failed
            place.cause = ""
        if not place.caught_up:
            place.caught_up = max(offset, bounds.begin) >= place.end
        return offset

    # What people are told

    async def _back_off(self, failures: int) -> None:
        if failures:
            longest = min(LAST_BACKOFF, FIRST_BACKOFF * 2 ** min(failures - 1, 10))
            await asyncio.sleep(longest * (0.5 + 0.5 * self._jitter()))

    def _log_is_away(self, error: Exception) -> None:
        away = str(error) if isinstance(error, Replaced) else "the log is away"
        if self._away != away:
            log.warning(away, extra=self._extra(cause=str(error)))
        self._away = away

    def _log_is_back(self) -> None:
        if self._away:
            log.info("the log is back", extra=self._extra())
            self._away = ""

    def _extra(self, partition: int | None = None, **more: object) -> dict[str, object]:
        if partition is not None:
            more["partition"] = partition
        return {"topic": self._handler.topic, **more}


def _task_name(handler: Handler, place: Place) -> str:
    return f"restore {handler.topic} {place.partition}"
