"""Who the users are: asked of the sources in order, in batches, and remembered.

A user comes from the users file (read into memory), the `subscriber` table or the directory; a later source
is asked only for the algorithms that earlier ones lack. What was found is remembered for `cache_seconds`, and
for much longer while a source is away: those who could authenticate before go on (CHECKLIST A18).
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Protocol, TypeVar

import msgspec

from authsvc.config import AuthSettings
from authsvc.decider import Owner, Unknown
from authsvc.lookups import Lookups
from authsvc.user import User
from authsvc.users_file import UsersFile
from events import limits
from runtime.errors import Unavailable

V = TypeVar("V")

Key = tuple[str, str]
"""Digest user and realm."""

AWAY_SECONDS = 0.5
"""For how long nobody is asked again about a key that could not be looked up."""
UNKNOWN_USERS = 50_000
"""The most names remembered as unknown, or as not to be had now; apart, so that they push out no user."""


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


class AliasSource(Protocol):
    """Where aliases come from."""

    async def find_aliases(self, keys: Collection[Key]) -> dict[Key, Key]:
        """By alias name and domain, the user's; raises Unavailable."""
        ...


class _Known(msgspec.Struct, frozen=True, gc=False):
    user: User
    fresh: float
    """Until when, in monotonic seconds."""


class _Missing(msgspec.Struct, frozen=True, gc=False):
    why: Unknown | None
    """None: there is no such user."""
    until: float


class _Alias(msgspec.Struct, frozen=True, gc=False):
    user: Key | Unknown | None
    until: float


class Users:
    """What authsvc knows of users and aliases; look-ups go on behind it and report by `found`."""

    def __init__(
        self,
        settings: AuthSettings,
        algorithms: Mapping[str, Sequence[str]],
        file: UsersFile | None,
        sources: Sequence[Source],
        aliases: AliasSource | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`algorithms` by served domain; `sources` in the order in which they are asked."""
        self._settings = settings
        self._algorithms = algorithms
        self._file = file
        self._sources = sources
        self._alias_source = aliases
        self._clock = clock
        self._now = clock()
        self._known: dict[Key, _Known] = {}
        self._missing: dict[Key, _Missing] = {}
        self._aliases: dict[Key, _Alias] = {}
        self._user_lookups: Lookups[Key] = Lookups(self._fetch_users, settings.parked)
        self._alias_lookups: Lookups[Key] = Lookups(self._fetch_aliases, settings.parked)
        self.found: Callable[[Collection[Key]], None] = _nobody
        """Called with keys whose look-up has ended, whatever it found."""

    async def stop(self) -> None:
        """Ends the look-ups."""
        await self._user_lookups.stop()
        await self._alias_lookups.stop()

    def tick(self) -> None:
        """Looks at the clock, and at the users file if it is time; once a batch."""
        self._now = self._clock()
        if self._file:
            self._file.refresh(self._now)

    def user(self, key: Key) -> User | Unknown | None:
        """The user, None when there is no such one, or why that is not known."""
        if self._file and (user := self._file.get(key)) is not None:
            return user
        known = self._known.get(key)
        if known is not None and self._now < known.fresh:
            return known.user
        if known is not None and self._may_be_stale(known):
            return known.user
        missing = self._missing.get(key)
        if missing is not None and self._now < missing.until:
            return missing.why
        if not self._sources or not _findable(key):
            return None
        return Unknown.UNASKED

    def owner(self, key: Key) -> Owner | Unknown:
        """Whose an AOR (its user part unescaped, its domain) is."""
        alias = self._alias(key)
        if isinstance(alias, Unknown):
            return alias
        if alias is not None:
            return Owner(f"{alias[0]}@{alias[1]}", exists=True)
        user = self.user(key)
        if isinstance(user, Unknown):
            return user
        return Owner(None, exists=user is not None)

    def ask_user(self, key: Key) -> bool:
        """Has a user looked up; False when there is no room."""
        return self._user_lookups.ask(key)

    def ask_owner(self, key: Key) -> bool:
        """Has what is still unknown of an AOR's owner looked up; False when there is no room."""
        if self._alias(key) is Unknown.UNASKED:
            return self._alias_lookups.ask(key)
        return self._user_lookups.ask(key)

    def _alias(self, key: Key) -> Key | Unknown | None:
        if self._alias_source is None or not _findable(key):
            return None
        alias = self._aliases.get(key)
        if alias is None or self._now >= alias.until:
            return Unknown.UNASKED
        return alias.user

    def _may_be_stale(self, known: _Known) -> bool:
        """An old user serves while a source is away, so that a request does not wait for what cannot come."""
        return self._now < known.fresh + self._settings.stale_seconds and any(s.away for s in self._sources)

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
                if user.has_all(self._algorithms.get(key[1], ())):
                    complete.add(key)
        self._remember_users(keys, found, unsure)
        self.found(keys)

    def _remember_users(self, keys: Sequence[Key], found: Mapping[Key, User], unsure: Collection[Key]) -> None:
        self._now = now = self._clock()
        for key in keys:
            user = found.get(key)
            if key in unsure:
                if user is not None and key not in self._known:
                    self._keep(key, _Known(user, now + AWAY_SECONDS))
                else:
                    self._miss(key, _Missing(Unknown.AWAY, now + AWAY_SECONDS))
            elif user is not None:
                self._missing.pop(key, None)
                self._keep(key, _Known(user, now + self._settings.cache_seconds))
            else:
                self._known.pop(key, None)
                self._miss(key, _Missing(None, now + self._settings.unknown_seconds))

    def _keep(self, key: Key, known: _Known) -> None:
        """Entries are in the order in which they were looked up: who is not asked for any more goes first."""
        self._known.pop(key, None)
        _make_room(self._known, self._settings.cached_users)
        self._known[key] = known

    def _miss(self, key: Key, missing: _Missing) -> None:
        self._missing.pop(key, None)
        _make_room(self._missing, UNKNOWN_USERS)
        self._missing[key] = missing

    async def _fetch_aliases(self, keys: Sequence[Key]) -> None:
        found: Mapping[Key, Key] | None = {}
        if self._alias_source is not None:
            try:
                found = await self._alias_source.find_aliases(keys)
            except Unavailable:
                found = None
        self._now = now = self._clock()
        for key in keys:
            self._aliases.pop(key, None)
            _make_room(self._aliases, UNKNOWN_USERS)
            if found is None:
                self._aliases[key] = _Alias(Unknown.AWAY, now + AWAY_SECONDS)
            else:
                self._aliases[key] = _Alias(found.get(key), now + self._settings.unknown_seconds)
        self.found(keys)


def _findable(key: Key) -> bool:
    """Whether any source could have such a user: names that fit no column are nobody's."""
    name = key[0]
    return 0 < len(name) <= limits.USERNAME and len(key[1]) <= limits.DOMAIN and name.isprintable()


def _make_room(entries: dict[Key, V], capacity: int) -> None:
    if len(entries) >= capacity:
        # Several at a time: finding the first of a dictionary whose first ones went is slow.
        for key in list(islice(entries, 1 + capacity // 64)):
            del entries[key]


def _nobody(keys: Collection[Key]) -> None:
    """Nobody waits yet."""
