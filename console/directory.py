"""Operators of an LDAP directory: whoever proves his password by a bind and is in a group that has a role.

Who has logged in is looked up again every half minute: whoever has left the groups or the directory, or has a new
password where the directory says so, is nobody then, and so is everybody whom it has not confirmed for ten minutes.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from authsvc.users.ldap_connection import LdapUnavailable
from authsvc.users.ldap_people import LdapPeople, Person
from console.accounts import Account
from console.config import ROLES, Role
from console.sessions import CAPACITY, LONGEST

log = logging.getLogger("ramal.console")

LOOK_SECONDS = 30.0
UNCONFIRMED_SECONDS = 600.0
"""So long is somebody believed while the directory is away."""
LONGEST_NAME = 64
CHANGED = ("pwdChangedTime", "pwdLastSet")
"""Attributes that say when a password was changed (OpenLDAP's and 389 DS' policies, Active Directory)."""

No = Literal["wrong_password", "no_role"]


class _Known(NamedTuple):
    account: Account
    begun: float
    """When he logged in, on the clock of `LdapOperators`, as `confirmed`: when the directory last said so."""
    confirmed: float


class LdapOperators:
    """Those of the directory who have logged in."""

    def __init__(
        self, people: LdapPeople, groups: Mapping[str, Role], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`groups`: the role of each by its DN; who is in several has the one that may more."""
        self._people = people
        self._groups = groups
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._looking: asyncio.Task[None] | None = None
        self._away = False

    def start(self) -> None:
        """Begins to look."""
        self._looking = asyncio.create_task(self._look_always(), name="console directory")

    async def stop(self) -> None:
        """Looks no more."""
        if self._looking:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        self._people.stop()

    def get(self, name: str) -> Account | None:
        """Whoever has logged in by this name, as the directory last knew him."""
        known = self._known.get(name)
        if known is None or self._clock() - known.confirmed > UNCONFIRMED_SECONDS:
            return None
        return known.account

    async def log_in(self, name: str, password: str) -> Account | No:
        """Who that is, or why he is not let in; raises LdapUnavailable."""
        if not (name and password and name.isprintable() and len(name) <= LONGEST_NAME):
            return "wrong_password"
        person = (await self._people.find([name], CHANGED)).get(name)
        if person is None or not await self._people.is_right(person, password):
            return "wrong_password"
        account = self._account(person, (await self._people.members([person], list(self._groups)))[name])
        if account is None:
            return "no_role"
        now = self._clock()
        self._known.pop(name, None)
        while len(self._known) >= CAPACITY:  # as many as sessions; who logged in longest ago goes first
            del self._known[next(iter(self._known))]
        self._known[name] = _Known(account, now, now)
        return account

    async def look(self) -> None:
        """Asks the directory who of them still is what he was; raises LdapUnavailable."""
        now = self._clock()
        for name in [name for name, known in self._known.items() if now - known.begun > LONGEST / 1000]:
            del self._known[name]
        asked = dict(self._known)
        if not asked:
            return
        people = await self._people.find(asked, CHANGED)
        groups = await self._people.members(list(people.values()), list(self._groups))
        for name, before in asked.items():
            if self._known.get(name) is not before:
                continue  # he has logged in again meanwhile
            account = self._account(people[name], groups[name]) if name in people else None
            if account is None:
                log.info("an operator is none in the directory any more", extra={"operator": name})
                del self._known[name]
            else:
                self._known[name] = before._replace(account=account, confirmed=now)

    async def _look_always(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except LdapUnavailable as error:
                if not self._away:
                    log.warning("operators cannot be looked up", extra={"cause": str(error)})
                self._away = True
            except Exception:  # a bug: an alarm, and on; who is not confirmed is not believed for long
                log.exception("looking operators up broke")
            else:
                self._away = False

    def _account(self, person: Person, groups: list[str]) -> Account | None:
        roles = {self._groups[group] for group in groups}
        if not roles:
            return None
        changed = [value.hex() for name in CHANGED for value in person.attributes.get(name.lower(), ())]
        return Account(person.name, max(roles, key=ROLES.index), "\n".join([person.dn, *changed]))
