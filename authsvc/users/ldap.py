"""Users and their telephone numbers from an LDAP directory.

One search is for many names. The connection is `ldap_connection`'s, opened on a thread, since ldap3 blocks, and bound
as the service's own account; nobody else ever binds here (CHECKLIST A20). The search itself is `ldap_wire`'s and waits
on the loop: handing each to a thread and its answer back costs more than the search.

When a search fails, the directory is `away`: look-ups fail at once, and a probe every second says when it is
back. So a directory that hangs costs one time-out, not every request a wait.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from prometheus_client import Counter, Gauge

from authsvc.config import LdapSettings
from authsvc.users.accounts import MODIFIED, PASSWORD_CHANGED, Account, account_of, disabled_by_any
from authsvc.users.ha1 import User, from_ha1s, from_password
from authsvc.users.ldap_connection import (
    NO_ANSWER,
    LdapUnavailable,
    close,
    close_late,
    connect,
    filter_octets,
    server_of,
    warn_if_insecure,
)
from authsvc.users.ldap_faults import fault
from authsvc.users.ldap_socket import receive, send
from authsvc.users.ldap_values import clear_text, numbers, rule_of, text_of, written
from authsvc.users.ldap_wire import (
    SIZE_LIMIT_EXCEEDED,
    SUCCESS,
    Done,
    Ended,
    Entry,
    Reference,
    any_of,
    one_of,
    search,
    take,
)
from authsvc.users.remembered import Key
from runtime.config import Domain
from sipcore.telephone import normal

log = logging.getLogger("ramal.authsvc")

SEARCHES = Counter("ramal_authsvc_ldap_searches", "Searches sent to the directory.")
NAMES = Counter("ramal_authsvc_ldap_names", "Names asked for in these searches.")
AWAY = Gauge("ramal_authsvc_directory_away", "1 while the directory does not answer, or has no users; else 0.")

CONNECTING = 2
"""Connections opened at one time."""
NAMES_AT_ONCE = 100
"""Accounts asked for in one search."""
PROBE_SECONDS = 1.0
LOOK_SECONDS = 30.0
"""How often it is looked whether anybody has come where nobody was."""
_PROBE = "ramal-probe"


class _Found(NamedTuple):
    entries: list[Entry]
    partly: bool
    """Whether the directory referred to another server for the rest."""


class LdapUsers:
    """A source of users and of numbers (see `authsvc.users.directory`)."""

    name = "ldap"

    def __init__(
        self, settings: LdapSettings, domains: Mapping[str, Domain], clock: Callable[[], float] = time.time
    ) -> None:
        """`domains` that are served: for their algorithms a password is turned into HA1s; `clock` in Unix seconds.

        Raises ConfigError.
        """
        self._settings = settings
        self._domains = {name: domain for name, domain in domains.items() if settings.has(name)}
        self._clock = clock
        self._filter = filter_octets(settings.filter)
        self._attributes = [settings.uid_attribute, *settings.disabled_by]
        if settings.password_attribute:
            self._attributes.append(settings.password_attribute)
        self._attributes.extend(settings.ha1_attributes.values())
        self._server = server_of(settings)
        self._threads = ThreadPoolExecutor(CONNECTING, "ldap")
        self._idle: list[Any] = []
        self._probing: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self.lost = ""
        """Why it tells nothing of anybody; "" while it does."""
        self._stopped = False
        self.back = asyncio.Event()
        """Set while the directory is not known to be away."""
        self.back.set()
        warn_if_insecure(settings)

    def start(self) -> None:
        """Looks whether it answers and has anybody, so that a wrong setting is told before a phone comes."""
        AWAY.set_function(lambda: float(bool(self.lost)))
        self._looking = asyncio.create_task(self._look(), name="ldap look")

    @property
    def away(self) -> bool:
        """Whether the last search or probe failed."""
        return not self.back.is_set()

    async def find(self, keys: Collection[Key]) -> dict[Key, User]:
        """The users among these (name, realm) that the directory has, but for disabled ones; raises LdapUnavailable."""
        here = [key for key in keys if key[1] in self._domains]
        if not here:
            return {}
        names = sorted({name for name, _ in here})
        entries = self._exact(names, (await self._entries(names, self._attributes)).entries)
        return {key: self._user(key, entries[key[0]]) for key in here if self._is_used(entries.get(key[0]))}

    async def accounts(self, keys: Collection[Key]) -> dict[Key, Account]:
        """Of these users, what the directory says of their accounts; nothing of those that it does not have.

        Raises LdapUnavailable, also where the directory refers to another server for some that it does not have.
        """
        here = [key for key in keys if key[1] in self._domains]
        settings = self._settings
        wanted = (settings.uid_attribute, *settings.disabled_by, *PASSWORD_CHANGED, MODIFIED)
        entries: dict[str, Entry] = {}
        asked = sorted({name for name, _ in here})
        for begin in range(0, len(asked), NAMES_AT_ONCE):
            names = asked[begin : begin + NAMES_AT_ONCE]
            found = await self._entries(names, wanted)
            entries |= self._exact(names, found.entries)
            if found.partly and any(name not in entries for name in names):
                raise LdapUnavailable("it refers to other servers; RAMAL_LDAP_BASE must be what is on this one")
        now = self._clock()
        by_name = {name: account_of(entry.attributes, settings.disabled_by, now) for name, entry in entries.items()}
        return {key: by_name[key[0]] for key in here if key[0] in by_name}

    async def in_use(self, keys: Collection[Key]) -> Collection[Key]:
        """Those of these users whose accounts are not disabled; raises LdapUnavailable.

        Also where nobody at all is below the base: that is a directory not filled yet, or a base with a mistake.
        """
        accounts = await self.accounts(keys)
        if any(key[1] in self._domains and key not in accounts for key in keys):
            uid = self._settings.uid_attribute
            if not (await self._answer(any_of(uid, self._filter), [uid], most=1)).entries:
                raise LdapUnavailable(self._nobody())
        return {key for key, account in accounts.items() if not account.disabled}

    async def find_numbers(self, keys: Collection[Key]) -> dict[Key, Key]:
        """By number and domain, the user who alone has it; raises LdapUnavailable.

        Values are compared in their one spelling; the search asks for how a number is usually written, where spaces
        and hyphens are the directory's to leave out (telephoneNumberMatch, RFC 4517 section 4.2.29).
        """
        rules = {key[1]: rule_of(self._domains[key[1]]) for key in keys if key[1] in self._domains}
        if not rules:
            return {}
        self._check_there()
        asked = sorted({text for number, domain in keys if domain in rules for text in written(number, rules[domain])})
        uid, attribute = self._settings.uid_attribute, self._settings.number_attribute
        try:
            octets = [text.encode() for text in asked]
            NAMES.inc(len(octets))
            wanted = [uid, attribute, *self._settings.disabled_by]
            entries = (await self._search(one_of(attribute, octets, self._filter), wanted)).entries
        except NO_ANSWER as error:
            # It may be slow for want of an index, which says nothing of searches for users.
            raise LdapUnavailable(fault(error, self._settings)) from error
        found: dict[Key, Key] = {}
        shared: set[Key] = set()
        for entry in filter(self._is_used, entries):
            name = text_of(entry, uid)
            for domain, rule in rules.items():
                for number in {normal(number, rule) for number in numbers(entry, attribute)}:
                    if found.setdefault((number, domain), (name, domain)) != (name, domain) or not name:
                        shared.add((number, domain))
        for number, domain in shared:
            log.warning("a telephone number is of two entries, or of one without a uid", extra={"number": number})
            del found[number, domain]
        return {key: found[key] for key in keys if key in found}

    async def stop(self) -> None:
        """Ends the probe and closes the connections; one that is being opened ends by its own time-out."""
        self._stopped = True
        for task in (self._looking, self._probing):
            if task:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._threads.shutdown(wait=False, cancel_futures=True)
        while self._idle:
            close(self._idle.pop())

    def _check_there(self) -> None:
        if self.away:
            raise LdapUnavailable("the directory is away")

    async def _entries(self, names: Sequence[str], wanted: Sequence[str]) -> _Found:
        """The entries with one of these names; raises LdapUnavailable."""
        return await self._answer(self._named(names), wanted)

    async def _answer(self, filter_: bytes, wanted: Sequence[str], most: int = 0) -> _Found:
        """What a search finds; if it fails, the directory is away. Raises LdapUnavailable."""
        self._check_there()
        try:
            return await self._search(filter_, wanted, most)
        except NO_ANSWER as error:
            self._lost(error)
            raise LdapUnavailable(fault(error, self._settings)) from error

    def _named(self, names: Sequence[str]) -> bytes:
        NAMES.inc(len(names))
        return one_of(self._settings.uid_attribute, [name.encode() for name in names], self._filter)

    def _is_used(self, entry: Entry | None) -> bool:
        """Whether there is an entry, and its account is not disabled."""
        if entry is None:
            return False
        return not disabled_by_any(entry.attributes, self._settings.disabled_by, self._clock())

    def _lost(self, error: BaseException) -> None:
        """Begins to probe; says so once."""
        if self._probing is None and not self._stopped:
            self.lost = fault(error, self._settings)
            log.warning("the directory is away", extra={"url": self._settings.url, "cause": self.lost})
            self._probing = asyncio.create_task(self._probe(), name="ldap probe")
            self.back.clear()

    async def _probe(self) -> None:
        told = {self.lost}
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await self._search(self._named([_PROBE]), self._attributes)
            except NO_ANSWER as error:
                self.lost = fault(error, self._settings)
                if self.lost not in told:  # mended in part, perhaps: each cause once
                    told.add(self.lost)
                    log.warning("the directory is still away", extra={"url": self._settings.url, "cause": self.lost})
                continue
            log.warning("the directory is back", extra={"url": self._settings.url})
            self.lost = ""
            self._probing = None
            self.back.set()
            return

    async def _look(self) -> None:
        """Until somebody is there who could be a user, or the directory does not let us ask that."""
        uid, told = self._settings.uid_attribute, False
        while True:
            with contextlib.suppress(LdapUnavailable):
                await self._entries([_PROBE], self._attributes)
            await self.back.wait()
            try:
                found = await self._search(any_of(uid, self._filter), [uid], most=1)
            except Ended as refused:
                log.debug("who is there at all cannot be asked", extra={"cause": fault(refused, self._settings)})
                return
            except NO_ANSWER:
                continue  # the next search for a name says so
            if found.entries:
                break
            self.lost = self._nobody()
            if not told:
                told = True
                log.error("the directory has no users", extra={"url": self._settings.url, "cause": self.lost})
            await asyncio.sleep(LOOK_SECONDS)
        if told:
            self.lost = ""
            log.warning("the directory has users", extra={"url": self._settings.url})

    def _nobody(self) -> str:
        """What is wrong, in a sentence, where nobody at all is a user."""
        settings = self._settings
        also = f" and matches RAMAL_LDAP_FILTER {settings.filter!r}" if settings.filter else ""
        return (
            f"nobody below RAMAL_LDAP_BASE {settings.base!r} has the attribute {settings.uid_attribute!r}"
            f" (RAMAL_LDAP_UID_ATTRIBUTE){also}"
        )

    async def _search(self, filter_: bytes, wanted: Sequence[str], most: int = 0) -> _Found:
        """The entries that match, with these attributes of them; of many, `most` are enough. Raises NO_ANSWER."""
        async with asyncio.timeout(self._settings.timeout):
            while True:
                fresh = not self._idle
                connection = await self._connected() if fresh else self._idle.pop()
                try:
                    answer = await self._ask(connection, filter_, wanted, most)
                except NO_ANSWER:
                    close(connection)
                    # A kept connection may have been closed by the server meanwhile: that says nothing of it now.
                    if fresh:
                        raise
                    continue
                except BaseException:  # its time is over, or we stop: an answer may still come on this connection
                    close(connection)
                    raise
                if self._stopped:
                    close(connection)
                else:
                    self._idle.append(connection)
                return answer

    async def _connected(self) -> Any:
        """A new connection; if nobody waits for it any more when it is there, it is closed."""
        opening = asyncio.get_running_loop().run_in_executor(self._threads, self._connect)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(close_late)
            raise

    def _connect(self) -> Any:
        connection = connect(self._server, self._settings)
        connection.socket.setblocking(False)
        return connection

    async def _ask(self, connection: Any, filter_: bytes, wanted: Sequence[str], most: int) -> _Found:
        settings = self._settings
        message_id = self._server.next_message_id()
        seconds = max(1, int(settings.timeout))
        SEARCHES.inc()
        await send(connection.socket, search(message_id, settings.base, filter_, wanted, seconds, most))
        entries: list[Entry] = []
        partly = False
        data = b""
        while True:
            received = await receive(connection.socket)
            if not received:
                raise ConnectionResetError("the directory closed the connection")
            data += received
            answers, used = take(data, message_id)
            data = data[used:]
            for answer in answers:
                if isinstance(answer, Entry):
                    entries.append(answer)
                elif isinstance(answer, Reference):
                    partly = True
                elif isinstance(answer, Done):
                    if answer.code != SUCCESS and not (most and answer.code == SIZE_LIMIT_EXCEEDED):
                        # Half an answer, or none, must not make a user unknown.
                        raise Ended(answer.code)
                    return _Found(entries, partly)

    def _exact(self, names: Sequence[str], entries: Sequence[Entry]) -> dict[str, Entry]:
        """LDAP finds `alice` for `Alice` too; AORs and digest users are case-sensitive."""
        asked = {name.encode(): name for name in names}
        attribute = self._settings.uid_attribute.lower()
        found: dict[str, Entry] = {}
        for entry in entries:
            for value in entry.attributes.get(attribute, ()):
                if (name := asked.get(value)) is None:
                    continue
                if name in found:
                    # Two people of one name: neither's password may open the other's telephone.
                    log.warning("two entries have the same uid", extra={"uid": name})
                    found[name] = Entry({})
                else:
                    found[name] = entry
        return found

    def _user(self, key: Key, entry: Entry) -> User:
        name, realm = key
        settings = self._settings
        wanted = self._domains[realm].algorithms
        password = clear_text(entry, settings.password_attribute)
        computed = from_password(name, realm, password, wanted) if password else User()
        if not settings.ha1_attributes:
            return computed
        stored: dict[str, str] = {
            algorithm: text_of(entry, attribute) for algorithm, attribute in settings.ha1_attributes.items()
        }
        return from_ha1s(stored).completed(computed)
