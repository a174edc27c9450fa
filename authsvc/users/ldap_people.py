"""People of the directory, a few at a time: who they are, whether a password is theirs, which groups they are in.

For what people do by hand (a log-in to the console, enrolment), where a connection each costs nothing that anybody
notices; phones are `ldap`'s. A password is proven by a bind, whatever its hash (RFC 4513 section 5.1.3).
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from authsvc.config import LdapSettings
from authsvc.users.ldap_connection import NO_ANSWER, LdapUnavailable, close, connect, server_of, warn_if_insecure
from authsvc.users.ldap_faults import fault

import ldap3  # isort: skip  # after `ldap_connection`, which keeps its deprecations quiet
from ldap3.core.exceptions import LDAPNoSuchObjectResult, LDAPOperationResult  # isort: skip
from ldap3.utils.conv import escape_filter_chars  # isort: skip

log = logging.getLogger("ramal.authsvc")

T = TypeVar("T")

SECONDS = 5.0
"""For all of one question; a bind may have a costly hash to compute."""
AT_ONCE = 2
NOT_PROVEN = frozenset({19, 48, 49, 50, 53})
"""Result codes by which a bind says no to a person: constraintViolation (389 DS: too many attempts),
inappropriateAuthentication (no password there), invalidCredentials, insufficientAccessRights, unwillingToPerform
(RFC 4511 appendix A). Any other says that the directory cannot tell."""
MEMBERS = ("member", "uniqueMember")
"""Of groupOfNames, of groupOfUniqueNames (RFC 4519); Active Directory's groups have the first, too."""


class Person(NamedTuple):
    """An entry of somebody."""

    name: str
    """The value of the uid attribute, exactly as it was asked for."""
    dn: str
    attributes: Mapping[str, Sequence[bytes]]
    """Those that were asked for, by name in lower case."""


class LdapPeople:
    """Asks one directory by `LdapSettings`, with the same rules of TLS as the look-ups of phones (CHECKLIST A21)."""

    def __init__(self, settings: LdapSettings) -> None:
        """Raises ConfigError where passwords would travel unprotected."""
        settings.check()
        self._settings = settings
        self._server = server_of(settings)
        self._threads = ThreadPoolExecutor(AT_ONCE, "ldap people")
        self._told: set[str] = set()
        warn_if_insecure(settings)

    def stop(self) -> None:
        """Asks nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def find(self, names: Collection[str], attributes: Sequence[str] = (), among: str = "") -> dict[str, Person]:
        """The people of these very names, with these attributes; raises LdapUnavailable.

        Nobody is found by a name that two entries have. `among`: a filter that they match (RFC 4515).
        """
        asked = sorted(name for name in set(names) if _is_text(name))
        return await self._ask(lambda: self._find(asked, attributes, among))

    async def is_right(self, person: Person, password: str) -> bool:
        """Whether a bind proves that this password is the person's; an empty one proves nothing and is not tried
        (CHECKLIST A20). Raises LdapUnavailable."""
        # What a server written in C might take for an empty one is no password; nor is what is not UTF-8.
        if not (person.dn and password and _is_text(password)) or "\0" in password:
            return False
        return await self._ask(lambda: self._bind(person, password))

    async def members(self, people: Sequence[Person], groups: Sequence[str]) -> dict[str, list[str]]:
        """By name, which of the groups (DNs) a person is in; a group that is not there has nobody in it.

        By DN in `member` or `uniqueMember`, by name in `memberUid` (posixGroup). Raises LdapUnavailable.
        """
        return await self._ask(lambda: self._members(people, groups))

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, question)
        except NO_ANSWER as error:  # TimeoutError is an OSError
            raise LdapUnavailable(fault(error, self._settings)) from error

    @contextlib.contextmanager
    def _service(self) -> Iterator[Any]:
        """A connection bound as the service's account."""
        connection = connect(self._server, self._settings)
        try:
            yield connection
        finally:
            close(connection)

    def _find(self, names: Sequence[str], attributes: Sequence[str], among: str) -> dict[str, Person]:
        found: dict[str, Person] = {}
        with self._service() as connection:
            for name in names:
                if person := self._one(connection, name, attributes, among):
                    found[name] = person
        return found

    def _one(self, connection: Any, name: str, attributes: Sequence[str], among: str) -> Person | None:
        uid = self._settings.uid_attribute
        filter_ = f"(&({uid}={escape_filter_chars(name)}){among})"
        entries = _search(connection, self._settings.base, filter_, ldap3.SUBTREE, [uid, *attributes])
        # LDAP finds `maria` for `Maria` too; a name is one spelling of it (CHECKLIST A19).
        exact = [each for each in entries if name.encode() in each.attributes.get(uid.lower(), ())]
        if len(exact) > 1:
            log.warning("two entries have the same uid", extra={"uid": name})
            return None
        return exact[0]._replace(name=name) if exact else None

    def _bind(self, person: Person, password: str) -> bool:
        try:
            connection = connect(self._server, self._settings, (person.dn, password))
        except LDAPOperationResult as error:
            if error.result in NOT_PROVEN:
                return False
            raise
        close(connection)
        return True

    def _members(self, people: Sequence[Person], groups: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {person.name: [] for person in people}
        with self._service() as connection:
            for group in groups:
                for person in people:
                    try:
                        if _search(connection, group, _is_member(person), ldap3.BASE, ["1.1"]):
                            found[person.name].append(group)
                    except LDAPNoSuchObjectResult:
                        self._missing(group)
                        break
        return found

    def _missing(self, group: str) -> None:
        if group not in self._told:
            self._told.add(group)
            log.warning("a group is not in the directory", extra={"group": group})


def _is_text(text: str) -> bool:
    """Whether it is characters all through: JSON can say halves of them, and no directory has those."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_member(person: Person) -> str:
    dn, name = escape_filter_chars(person.dn), escape_filter_chars(person.name)
    return f"(|{''.join(f'({attribute}={dn})' for attribute in MEMBERS)}(memberUid={name}))"


def _search(connection: Any, base: str, filter_: str, scope: Any, attributes: Sequence[str]) -> list[Person]:
    connection.search(base, filter_, scope, attributes=list(attributes), time_limit=int(SECONDS))
    return [
        Person("", each["dn"], {name.lower(): values for name, values in each["raw_attributes"].items()})
        for each in connection.response
        if each["type"] == "searchResEntry"
    ]
