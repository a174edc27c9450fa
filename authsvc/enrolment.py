"""Enrolment: who proves a password of the directory by a bind gets HA1s, whatever hash it holds (CHECKLIST A23).

The password is here for the time of a bind and of three hashes; nothing that is logged, told or stored has it. What is
stored takes effect when authsvc notices the row (see `authsvc.watch`), within some two seconds.
"""

import logging
import secrets
import time
from collections.abc import Callable, Collection

import msgspec

from authsvc.config import EnrolmentSettings, LdapSettings
from authsvc.decider import own_aor
from authsvc.memory.attempts import Attempts
from authsvc.memory.audit_rate import AuditRate
from authsvc.users.accounts import MODIFIED, PASSWORD_CHANGED, Account, account_of
from authsvc.users.enrolled import STAMP, enrolling, rows_of
from authsvc.users.ldap_people import LdapPeople
from authsvc.users.sealing import Keys
from events.audit import EnrolmentTried
from events.topics import AUDIT, partition_of
from events.wire import cloud_event, encode
from runtime.database.port import Database
from runtime.errors import ConfigError, LogRefused, Unavailable
from runtime.log.port import Append, Log
from runtime.metrics import dropped

log = logging.getLogger("ramal.authsvc")

FAILURES_OF_SOURCE = 30
"""Wrong passwords from one address until the next attempt from there must wait; many people may share one."""
LONGEST_PASSWORD = 256
"""Characters of a password of the directory at the most."""
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Of phone passwords: none that is taken for another one."""
GROUPS, OF = 6, 4
"""Of letters in a phone password: 118 bits in all."""


class Enrolment(msgspec.Struct, frozen=True):
    """What somebody has who has enrolled."""

    name: str
    domains: tuple[str, ...]
    phone_password: str
    """Of our making, to be shown once; "" where phones log in with the directory's."""
    was_retired_for: str
    """Why an enrolment before this one was over; "" where none was."""

    def __repr__(self) -> str:
        return f"Enrolment({self.name})"


class WrongPassword(msgspec.Struct, frozen=True):
    """Or there is no such user, or the account is disabled: to a stranger that is the same."""


class LockedOut(msgspec.Struct, frozen=True):
    """There were too many wrong passwords."""

    seconds: int
    """Until the next attempt may be made."""


class Who(msgspec.Struct, frozen=True):
    """Where an attempt comes from: an address (IPv6: a network), or an operator at a terminal."""

    source: str = ""
    operator: str = ""


class Enroller:
    """Takes attempts, as many as `Attempts` lets through; one in a process."""

    def __init__(
        self,
        settings: EnrolmentSettings,
        directory: LdapSettings,
        domains: Collection[str],
        keys: Keys,
        database: Database,
        log_: Log,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`domains` that are served. Raises ConfigError where the directory cannot be asked safely."""
        if not directory.url:
            raise ConfigError("RAMAL_LDAP_URL: is not set; enrolment is for users of a directory")
        keys.ring.sealing  # noqa: B018  # raises where there is no key
        listed = {each.lower() for each in directory.domains}
        self.domains = tuple(domain for domain in domains if not listed or domain in listed)
        """Those whose users are in the directory: who enrols can log in to each."""
        if not self.domains:
            raise ConfigError("RAMAL_LDAP_DOMAINS: none of them is served")
        self.generates = settings.phone_passwords == "generated"
        """Whether phones always get a password of our making."""
        self._people = LdapPeople(directory)
        self._disabled_by = directory.disabled_by
        self._filter = directory.filter
        """Who does not match it is no user of telephones, whatever else he is in the directory."""
        self._keys = keys
        self._database = database
        self._log = log_
        self._clock = clock
        self._users = Attempts(settings.failures, settings.locked_seconds)
        self._sources = Attempts(FAILURES_OF_SOURCE, settings.locked_seconds)
        self._rate = AuditRate()

    def stop(self) -> None:
        """Asks the directory nothing more."""
        self._people.stop()

    async def attempt(
        self, name: str, password: str, who: Who, *, generated: bool = False
    ) -> Enrolment | WrongPassword | LockedOut:
        """Enrols who knows the password. Raises Unavailable where the directory or the tables are away."""
        now = self._now()
        if seconds := max(self._users.remaining(name, now), self._sources.remaining(who.source, now)):
            await self._tell("", who, "locked out")
            return LockedOut(seconds)
        # Counted before it is known to be wrong: many at once are no way round the limit.
        self._users.failed(name, now)
        self._sources.failed(who.source, now)
        try:
            known, account = await self._proved(name, password)
            if account is None:
                await self._tell(name if known else "", who, "wrong password")
                return WrongPassword()
            made = await self._store(name, password, account, generated=generated or self.generates)
        except Exception:
            # It was not found wrong: nobody is shut out because a directory is away. Who goes before the answer is.
            self._users.retracted(name)
            self._sources.retracted(who.source)
            raise
        self._users.succeeded(name)
        self._sources.retracted(who.source)
        await self._tell(name, who, "enrolled")
        return made

    async def _proved(self, name: str, password: str) -> tuple[bool, Account | None]:
        """Whether the directory has such a user, and the account if this is its password."""
        if not password or len(password) > LONGEST_PASSWORD:
            return False, None
        wanted = (*PASSWORD_CHANGED, MODIFIED, *self._disabled_by)
        person = (await self._people.find([name], wanted, among=self._filter)).get(name)
        if person is None:
            return False, None
        account = account_of(person.attributes, self._disabled_by, self._clock())
        if account.disabled or not await self._people.is_right(person, password):
            return True, None
        return True, account

    async def _store(self, name: str, password: str, account: Account, *, generated: bool) -> Enrolment:
        keys = [(name, domain) for domain in self.domains]
        before = await rows_of(self._database, keys)
        made = phone_password() if generated else ""
        kind = "generated" if generated else "directory"
        seen = (account.password_changed[:STAMP], account.modified[:STAMP])
        statement = enrolling(self._database, self._keys.newest(), keys, made or password, kind, seen, self._now())
        await self._database.transact([statement])
        return Enrolment(name, self.domains, made, next((row.retired_for for row in before if row.retired_at), ""))

    async def _tell(self, name: str, who: Who, outcome: str) -> None:
        """The audit's record and a line of the log; of an attack a share, as of failed log-ins of phones."""
        if outcome != "enrolled" and not self._rate.allows(who.source, self._now()):
            dropped("audit-over-rate")
            return
        told = EnrolmentTried(name, who.source, who.operator, outcome)
        level = logging.INFO if outcome == "enrolled" else logging.WARNING
        log.log(level, "enrolment: %s", outcome, extra={"source": who.source, "user": name, "operator": who.operator})
        key = name or who.operator
        try:
            partition = partition_of(key, await self._log.partitions(AUDIT))
            headers = cloud_event("ramal.EnrolmentTried", "console" if who.source else "ramal", secrets.token_hex(10))
            await self._log.append([Append(AUDIT, partition, key.encode("utf-8", "replace"), encode(told), headers)])
        except (Unavailable, LogRefused) as error:
            log.warning("the audit has no record of this enrolment", extra={"user": name, "cause": str(error)})

    def _now(self) -> int:
        return int(self._clock() * 1000)


def phone_uri(name: str, domain: str, password: str = "") -> str:
    """A user's SIP URI; with the password in it, what a QR code has (RFC 3261 section 19.1.1)."""
    user = own_aor(name, domain).rpartition("@")[0]
    return f"sip:{user}:{password}@{domain}" if password else f"sip:{user}@{domain}"


def phone_password(choice: Callable[[str], str] = secrets.choice) -> str:
    """A password of our making, such as `k4tm-9xwp-hh2c-vq7d-ra8z-yt3e`: 118 bits that can be typed."""
    return "-".join("".join(choice(LETTERS) for _ in range(OF)) for _ in range(GROUPS))
