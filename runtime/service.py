"""Runs services in one process until SIGTERM or SIGINT: HTTP, orderly start, drain and stop.

SIGTERM drains first: what has begun may end by itself (`Drains`), and `/readyz` goes on saying what it said. A load
balancer that saw it fail would forget which phone talks to whom, and the last answers would leave from another address
than phones wrote to (kube-proxy drops its UDP entries). SIGINT, or a second signal of either kind, does not wait.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Protocol, runtime_checkable

from prometheus_client import Gauge

from runtime.config import Common
from runtime.errors import Unavailable
from runtime.http import HttpServer, Route, Status

log = logging.getLogger("ramal.runtime")

Gauge("ramal_build_info", "1, with the version that runs.", ["version"]).labels(version("ramal")).set(1)

STOP_SECONDS = 8.0
"""All of stopping, whatever hangs, once what drains has drained."""


RETRY_SECONDS = 0.5


class Service(Protocol):
    """One of edge, authsvc, registrar, locator."""

    name: str
    routes: Sequence[Route]
    """Its own HTTP routes; may be empty."""

    async def start(self) -> None:
        """Returns once its tasks run; what it needs may still be away."""
        ...

    async def stop(self, deadline: float) -> None:
        """Hands over and ends within `deadline` seconds."""
        ...

    def not_ready(self) -> list[str]:
        """Why nobody should be sent here, one sentence each; empty when it is ready."""
        ...

    def status(self) -> dict[str, str]:
        """By what it needs, why that is away; "" while it is there."""
        ...


@runtime_checkable
class Drains(Protocol):
    """A service that lets what has begun end by itself."""

    async def drain(self) -> None:
        """Returns when it has ended, or its time is over; may be cancelled."""
        ...


@runtime_checkable
class Unhurried(Protocol):
    """A service whose work nobody waits for: whoever answers phones on the same machine goes first."""

    unhurried: bool


class Resource(Protocol):
    """A log or a database: started before the services, stopped after them."""

    async def start(self) -> None: ...
    async def stop(self, deadline: float = 3.0) -> None: ...


async def serve(
    services: Sequence[Service],
    resources: Sequence[Resource],
    common: Common,
    *,
    routes: Sequence[Route] = (),
    started: Callable[[HttpServer], Awaitable[None]] | None = None,
) -> None:
    """Starts everything, waits for SIGTERM or SIGINT, drains, stops everything within STOP_SECONDS.

    HTTP answers from the first moment (alive, not ready), so that a probe sees a process that waits for a
    backend. `routes` are served beside those of the services, for operators. `started` is called once all services
    have started.
    """
    wake_in_turn()
    if all(isinstance(service, Unhurried) and service.unhurried for service in services):
        give_way()
    loop = asyncio.get_running_loop()
    stopping, at_once = asyncio.Event(), asyncio.Event()

    def asked_to_end(number: signal.Signals) -> None:
        if stopping.is_set() or number is signal.SIGINT:
            at_once.set()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_end, number)

    up = False
    waits: list[str] = []
    at_the_end: list[str] | None = None

    def not_ready() -> list[str]:
        if not up:
            return ["starting", *waits]
        if at_the_end is not None:
            return at_the_end
        return [f"{service.name}: {reason}" for service in services for reason in service.not_ready()]

    def status() -> Status:
        return {service.name: service.status() for service in services} if up else {}

    http = HttpServer(
        common.http_host,
        common.http_port,
        not_ready,
        [*(r for s in services for r in s.routes), *routes],
        status=status,
        draining=stopping.is_set,
    )
    await http.start()
    starting = asyncio.create_task(_start(services, resources, waits), name="start")
    waiting = asyncio.create_task(stopping.wait(), name="stopping")
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            starting.result()
            up = True
            settle_garbage()
            if started:
                await started(http)
            log.info("started", extra={"services": [s.name for s in services], "http": f"{http.host}:{http.port}"})
            await waiting
            at_the_end = not_ready()
            await _drain(services, at_once)
    finally:
        waiting.cancel()
        starting.cancel()
        stopping.set()
        await _stop(services, resources, http)


async def _start(services: Sequence[Service], resources: Sequence[Resource], waits: list[str]) -> None:
    for resource in resources:
        await _start_in_time(resource, waits)
    for service in services:
        await service.start()


async def _start_in_time(resource: Resource, waits: list[str]) -> None:
    """Starts it as soon as what it needs is there, however long that takes; says once that it waits, and for what."""
    while True:
        try:
            await resource.start()
        except Unavailable as error:
            if not waits:
                log.warning("waits for what it needs", extra={"cause": str(error)})
            waits[:] = [f"waits: {error}"]
            await asyncio.sleep(RETRY_SECONDS)
        else:
            waits.clear()
            return


async def _drain(services: Sequence[Service], at_once: asyncio.Event) -> None:
    """Lets all that drain do so at the same time, unless it is to end at once."""
    draining = [asyncio.create_task(s.drain(), name=f"drain {s.name}") for s in services if isinstance(s, Drains)]
    if not draining:
        return
    hurry: asyncio.Task[object] = asyncio.create_task(at_once.wait(), name="end at once")
    all_drained: asyncio.Task[object] = asyncio.create_task(asyncio.wait(draining), name="all drained")
    await asyncio.wait([hurry, all_drained], return_when=asyncio.FIRST_COMPLETED)
    all_drained.cancel()
    hurry.cancel()
    for task in draining:
        task.cancel()
    for service_drained in await asyncio.gather(*draining, return_exceptions=True):
        if isinstance(service_drained, Exception):
            log.error("draining broke; it stops as it is", exc_info=service_drained)


async def _stop(services: Sequence[Service], resources: Sequence[Resource], http: HttpServer) -> None:
    """Services first (edges before those that answer them), then what they stand on."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            for service in services:
                await service.stop(STOP_SECONDS / 2)
            for resource in reversed(resources):
                await resource.stop(2.0)
            await http.stop()
    except TimeoutError:
        log.warning("did not stop in time; ends as it is", extra={"seconds": STOP_SECONDS})


def settle_garbage() -> None:
    """Takes what start-up made out of the collector's sight, and lets it run seldom but briefly.

    As Python has it, it costs 5 %. But a round of the second generation looks at all that has come since the one
    before: 50 times 20,000 objects were a standstill of half a second in an edge with 600 calls a second, which five
    times 2,000 are not (docs/benchmark.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 5, 500)


def wake_in_turn() -> None:
    """Lets this process wait for its turn when a record wakes it on a busy machine (SCHED_BATCH).

    Under the default policy each record that arrives preempts whoever is writing the next ones, so batches
    stay small just when they should grow: measured 20 % fewer CPU-seconds and 20 % more registrations at
    saturation, and no difference on an idle machine. Needs no privilege; not every system has it.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


GIVEN_WAY = 5
"""Steps of niceness: a third of the share of a process of ordinary priority, where both want all of a core."""


def give_way() -> None:
    """Lets processes that phones wait for go first, where the machine has not enough for all.

    Work that comes in batches of a second holds up an edge on the same core for tens of milliseconds otherwise
    (docs/benchmark.md).
    """
    with contextlib.suppress(OSError):
        os.nice(GIVEN_WAY)
