"""Wiring of authsvc: settings, sources of users, handler and worker."""

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path

from authsvc.config import AuthSettings, EnrolmentSettings, LdapSettings
from authsvc.decider import Rules
from authsvc.handler import AuthHandler
from authsvc.sweep import Sweep
from authsvc.users.directory import Source, Users
from authsvc.users.enrolled import EnrolledUsers
from authsvc.users.file import UsersFile
from authsvc.users.ha1 import ALGORITHMS
from authsvc.users.ldap import LdapUsers
from authsvc.users.sealing import Keys
from authsvc.users.table import SubscriberUsers
from authsvc.watch import Watch
from events.topics import HOUR
from runtime.config import Common, Domain, Sources, hmac_keys
from runtime.database.port import Database
from runtime.errors import ConfigError
from runtime.http import Route
from runtime.log.port import Log, Record
from runtime.worker import Worker

LONGEST_NONCE = HOUR // 2000
"""Seconds. `auth.commands` keeps an hour, and a new owner learns from it which nonces may have been used."""


class AuthService:
    """authsvc in one process (see `runtime.service.Service`)."""

    name = "authsvc"
    routes: Sequence[Route] = ()

    def __init__(
        self,
        worker: Worker,
        handler: AuthHandler,
        users: Users,
        subscriber: SubscriberUsers | None,
        ldap: LdapUsers | None,
        enrolled: EnrolledUsers | None,
        sweep: Sweep | None,
        watch: Watch | None,
    ) -> None:
        self._worker = worker
        self._handler = handler
        self._users = users
        self._subscriber, self._ldap, self._enrolled = subscriber, ldap, enrolled
        self._sweep = sweep
        self._watch = watch
        self._sweeping: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to work; the log, the database and the directory may still be away."""
        self._handler.start()
        if self._ldap:
            self._ldap.start()
        self._task = asyncio.create_task(self._worker.run(), name="authsvc worker")
        if self._watch:
            self._watch.start()
        if self._sweep:
            self._sweeping = asyncio.create_task(self._sweep.run(), name="authsvc sweep")

    async def stop(self, deadline: float) -> None:
        """Leaves the group, then ends what answers parked commands and looks users up."""
        if self._sweeping:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        if self._watch:
            await self._watch.stop()
        await self._worker.stop(deadline * 0.8)
        await self._handler.stop()
        await self._users.stop()
        for source in (self._subscriber, self._ldap, self._enrolled):
            if source:
                await source.stop()
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def status(self) -> dict[str, str]:
        """By what it needs, why that is away; "" while it is there."""
        sources = {"users file": self._users.file_lost()}
        if self._subscriber:
            sources["subscriber"] = self._subscriber.lost()
        if self._ldap:
            sources["directory"] = self._ldap.lost
        if self._enrolled:
            sources["enrolled"] = self._enrolled.lost()
        return self._worker.status() | sources

    def not_ready(self) -> list[str]:
        """The worker's reasons. A directory that is away is none: who is known goes on."""
        return self._worker.not_ready()


def build(sources: Sources, log: Log, database: Database) -> AuthService:
    """The service of these settings; raises ConfigError."""
    common = sources.section(Common)
    settings = sources.section(AuthSettings, "authsvc")
    directory = sources.section(LdapSettings, "ldap")
    enrolment = sources.section(EnrolmentSettings, "enrolment")
    directory.check()
    if not 0 < common.nonce_seconds <= LONGEST_NONCE:
        raise ConfigError(f"RAMAL_NONCE_SECONDS: {common.nonce_seconds} is not from 1 to {LONGEST_NONCE}")
    domains = common.served()
    _check_algorithms(domains)
    if unserved := [name for name in directory.domains if name.lower() not in domains]:
        raise ConfigError(f"RAMAL_LDAP_DOMAINS: {unserved[0]!r} is not served; served are {', '.join(domains)}")
    subscriber = SubscriberUsers(database) if settings.subscriber else None
    ldap = LdapUsers(directory, domains) if directory.url else None
    asked: list[Source] = [source for source in (subscriber, ldap) if source is not None]
    file = UsersFile(Path(settings.users_file)) if settings.users_file else None
    enrolled = None
    if enrolment.keys and ldap:
        keys = Keys(lambda: str(sources.section(EnrolmentSettings, "enrolment").keys))
        enrolled = EnrolledUsers(database, keys)
    numbers = ldap if directory.number_attribute else None
    users = Users(settings, domains, file, asked, subscriber, numbers, enrolled)

    def dead_letter(record: Record, cause: str) -> Awaitable[None]:
        return worker.dead_letter(record, cause)

    handler = AuthHandler(
        log,
        users,
        Rules(domains, hmac_keys(common.keys), common.nonce_seconds),
        lockout=(settings.lockout_failures, settings.lockout_seconds),
        parked=settings.parked,
        dead_letter=dead_letter,
        keep_lost_flows=settings.lost_flows == "keep",
    )
    worker = Worker(log, handler)
    sweep = None
    if settings.sweep_seconds and (file or asked):
        sweep = Sweep(
            users,
            database,
            domains,
            handler.owns,
            handler.users_gone,
            seconds=settings.sweep_seconds,
            percent=settings.sweep_percent,
        )
    watch = None
    if enrolled and ldap:
        check_seconds = enrolment.check_seconds if enrolment.retire == "password-changed" else 0
        watch = Watch(database, ldap, handler.owns, handler.enrolled_anew, check_seconds=check_seconds)
    return AuthService(worker, handler, users, subscriber, ldap, enrolled, sweep, watch)


def _check_algorithms(domains: Mapping[str, Domain]) -> None:
    """Raises ConfigError for an algorithm that there is not, or where there is none."""
    for name, domain in domains.items():
        if not domain.algorithms or any(algorithm not in ALGORITHMS for algorithm in domain.algorithms):
            raise ConfigError(f"RAMAL_DOMAINS: {name}: algorithms must be some of {', '.join(ALGORITHMS)}")
