"""Who the users are: asked of the sources in order, in batches, and remembered.

A user comes from the users file (read into memory), the `subscriber` table or the directory; a later source
is asked only for the algorithms that earlier ones lack. What was found is remembered for `cache_seconds`, and
for much longer while a source is away: those who could authenticate before go on (CHECKLIST A18).

A name may also be an alias, or a telephone number of a user's; numbers are compared in the one spelling that the
domain's rule gives them (CHECKLIST Y32).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

from authsvc.config import AuthSettings
from authsvc.decider import Owner, Unknown
from authsvc.users.batches import Lookups
from authsvc.users.file import UsersFile
from authsvc.users.ha1 import User
from authsvc.users.remembered import UNKNOWN_NAMES, Key, Remembered, Times
from events import limits
from runtime.config import Domain
from runtime.errors import Unavailable
from sipcore.telephone import NO_RULE, NumberRule, digits, spellings


class Source(Protocol):
    """Where users come from, other than the users file."""

    name: str

    @property
    def away(self) -> bool:
        """Whether the last look-up failed."""
        ...

    async def find(self, keys: Collection[Key]) -> dict[Key, User]:
        """Those of these users that it has; raises Unavailable."""
        ...

    async def in_use(self, keys: Collection[Key]) -> Collection[Key]:
        """Those of these users that it has and has not disabled; raises Unavailable where it cannot tell of one."""
        ...


class Enrolments(Protocol):
    """HA1s of users whom a source has without them."""

    async def find(self, keys: Collection[Key]) -> dict[Key, User]:
        """Those of these users who have enrolled; raises Unavailable."""
        ...


class AliasSource(Protocol):
    """Where aliases come from."""

    async def find_aliases(self, keys: Collection[Key]) -> dict[Key, Key]:
        """By alias name and domain, the user's; raises Unavailable."""
        ...


class NumberSource(Protocol):
    """Where users' telephone numbers come from."""

    async def find_numbers(self, keys: Collection[Key]) -> dict[Key, Key]:
        """By number (as `sipcore.telephone.normal` spells it) and domain, the user's; raises Unavailable."""
        ...


class Users:
    """What authsvc knows of users and their other names; look-ups go on behind it and report by `found`."""

    def __init__(
        self,
        settings: AuthSettings,
        domains: Mapping[str, Domain],
        file: UsersFile | None,
        sources: Sequence[Source],
        aliases: AliasSource | None = None,
        numbers: NumberSource | None = None,
        enrolled: Enrolments | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`domains` that are served; `sources` in the order in which they are asked; `enrolled` completes what they
        say of a user, and says nothing of who is none of theirs."""
        self._settings = settings
        self._domains = domains
        self._rules = {name: NumberRule(domain.country, domain.area) for name, domain in domains.items()}
        self._file = file
        self._sources = sources
        self._alias_source = aliases
        self._number_source = numbers
        self._enrolled = enrolled
        self._clock = clock
        self._now = clock()
        times = Times(settings.cache_seconds, settings.unknown_seconds, settings.stale_seconds)
        self._users: Remembered[User] = Remembered(settings.cached_users, times, self._any_away)
        # Another name is a grant: it ends soon after it is taken away.
        grants = Times(settings.unknown_seconds, settings.unknown_seconds, settings.stale_seconds)
        self._names: Remembered[Key] = Remembered(UNKNOWN_NAMES, grants, self._any_away)
        """Whose aliases and telephone numbers names are."""
        self._user_lookups: Lookups[Key] = Lookups(self._fetch_users, settings.parked)
        self._name_lookups: Lookups[Key] = Lookups(self._fetch_names, settings.parked)
        self.found: Callable[[Collection[Key]], None] = _nobody
        """Called with keys whose look-up has ended, whatever it found."""

    async def stop(self) -> None:
        """Ends the look-ups."""
        await self._user_lookups.stop()
        await self._name_lookups.stop()

    def tick(self) -> None:
        """Looks at the clock, and at the users file if it is time; once a batch."""
        self._now = self._clock()
        if self._file:
            self._file.refresh(self._now)

    def file_lost(self) -> str:
        """Why the users file cannot tell who its users are; "" while it can, and where none is named."""
        if not self._file:
            return ""
        self._file.refresh(self._clock())
        return self._file.lost

    def user(self, key: Key) -> User | Unknown | None:
        """The user, None when there is no such one, or why that is not known."""
        if self._file and (user := self._file.get(key)) is not None:
            return user
        known = self._users.get(key, self._now)
        if known is Unknown.UNASKED and (not self._sources or not _findable(key)):
            return None
        return known

    def called(self, key: Key) -> Key | Unknown | None:
        """Who is called by a name: the user of that very name, else the one whose alias, else whose number it is."""
        user = self.user(key)
        if isinstance(user, User):
            return key
        name = self._name(key)
        if user is Unknown.UNASKED or name is Unknown.UNASKED:
            return Unknown.UNASKED
        # While the directory is away an alias serves: there is hardly a user of the same name.
        return name if isinstance(name, tuple) else user or name

    def owner(self, key: Key) -> Owner | Unknown:
        """Whose an AOR (its user part unescaped, its domain) is."""
        called = self.called(key)
        if isinstance(called, Unknown):
            return called
        if called is None or called == key:
            return Owner(None, exists=called is not None)
        return Owner(f"{called[0]}@{called[1]}", exists=True)

    async def gone(self, keys: Collection[Key]) -> set[Key]:
        """Those of these users that no source has in use, whatever is remembered; raises Unavailable."""
        left = set(keys)
        if self._file:
            self._file.refresh(self._clock())
            left -= self._file.among(left)
        for source in self._sources:
            if left:
                left.difference_update(await source.in_use(left))
        return left

    def left(self, keys: Collection[Key]) -> None:
        """These are gone: what is remembered of them counts no more."""
        for key in keys:
            self._users.absent(key, self._clock())

    def forget(self, keys: Collection[Key]) -> None:
        """What is remembered of these counts no more; the next who asks has them looked up."""
        for key in keys:
            self._users.forget(key)

    def ask_user(self, key: Key) -> bool:
        """Has a user looked up; False when there is no room."""
        return self._user_lookups.ask(key)

    def ask_called(self, key: Key) -> bool:
        """Has all looked up that is not known yet of who is called so; False when there is no room."""
        room = self.user(key) is not Unknown.UNASKED or self._user_lookups.ask(key)
        return room and (self._name(key) is not Unknown.UNASKED or self._name_lookups.ask(key))

    def _name(self, key: Key) -> Key | Unknown | None:
        if (self._alias_source is None and self._number_source is None) or not _findable(key):
            return None
        return self._names.get(key, self._now)

    def _any_away(self) -> bool:
        return any(source.away for source in self._sources)

    async def _fetch_users(self, keys: Sequence[Key]) -> None:
        found: dict[Key, User] = {}
        complete: set[Key] = set()
        unsure: set[Key] = set()
        for source in self._sources:
            wanted = [key for key in keys if key not in complete and key not in unsure]
            if not wanted:
                break
            try:
                answers = await source.find(wanted)
            except Unavailable:
                # A user that an earlier source has goes on with those HA1s.
                unsure.update(wanted)
                continue
            for key, user in answers.items():
                found[key] = user = found[key].completed(user) if key in found else user
                if user.has_all(self._algorithms(key[1])):
                    complete.add(key)
        if self._enrolled:
            await self._complete(self._enrolled, keys, found, complete, unsure)
        self._now = now = self._clock()
        for key in keys:
            if key in unsure:
                self._users.unsure(key, now, found.get(key))
            elif key in found:
                self._users.found(key, found[key], now)
            else:
                self._users.absent(key, now)
        self.found(keys)

    async def _complete(
        self, enrolled: Enrolments, keys: Sequence[Key], found: dict[Key, User], complete: set[Key], unsure: set[Key]
    ) -> None:
        """Adds the HA1s of enrolments, to who is found, and to those of whom a source that is away cannot tell."""
        wanted = [key for key in keys if (key in found and key not in complete) or key in unsure]
        if not wanted:
            return
        try:
            answers = await enrolled.find(wanted)
        except Unavailable:
            unsure.update(wanted)
            for key in wanted:
                if found.get(key) == User():
                    del found[key]  # with nothing to check by, every response would be wrong
            return
        for key, user in answers.items():
            found[key] = found.get(key, User()).completed(user)

    def _algorithms(self, domain: str) -> Sequence[str]:
        served = self._domains.get(domain)
        return served.algorithms if served else ()

    async def _fetch_names(self, keys: Sequence[Key]) -> None:
        """Both sources at the same time; an alias counts before a number."""
        written = {key: self._spelled(key) for key in keys}
        numbers = {key: spelled[0] for key, spelled in written.items() if spelled}
        wanted = set(numbers.values())
        aliased = dict.fromkeys(keys) | {key: None for spelled in written.values() for key in spelled}
        aliases, owners = await asyncio.gather(
            _known(self._alias_source.find_aliases(aliased) if self._alias_source else None),
            _known(self._number_source.find_numbers(wanted) if self._number_source and wanted else None),
        )
        self._now = now = self._clock()
        for key in keys:
            user = next((aliases[name] for name in (key, *written[key]) if name in aliases), None) if aliases else None
            if user is None and owners and key in numbers:
                user = owners.get(numbers[key])
            if user is not None:
                self._names.found(key, user, now)
            elif aliases is None or (owners is None and key in numbers):
                self._names.unsure(key, now)
            else:
                self._names.absent(key, now)
        self.found(keys)

    def _spelled(self, key: Key) -> list[Key]:
        """How this telephone number may be written, the one spelling first; nothing of a name that is none."""
        number = digits(key[0])
        return [(each, key[1]) for each in spellings(number, self._rules.get(key[1], NO_RULE))] if number else []


async def _known(asked: Awaitable[Mapping[Key, Key]] | None) -> Mapping[Key, Key] | None:
    """What a source says, nothing if there is no such source; None: it is away."""
    if asked is None:
        return {}
    try:
        return await asked
    except Unavailable:
        return None


def _findable(key: Key) -> bool:
    """Whether any source could have such a user: names that fit no column are nobody's."""
    name = key[0]
    return 0 < len(name) <= limits.USERNAME and len(key[1]) <= limits.DOMAIN and name.isprintable()


def _nobody(keys: Collection[Key]) -> None:
    """Nobody waits yet."""
