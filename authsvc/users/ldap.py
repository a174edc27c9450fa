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
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prometheus_client import Counter

from authsvc.config import LdapSettings
from authsvc.users.ha1 import User, from_ha1s, from_password
from authsvc.users.ldap_connection import (
    NO_ANSWER,
    LdapUnavailable,
    close,
    close_late,
    connect,
    server_of,
    warn_if_insecure,
)
from authsvc.users.ldap_socket import receive, send
from authsvc.users.ldap_wire import SUCCESS, Done, Entry, Malformed, search, take
from authsvc.users.remembered import Key
from runtime.config import Domain
from sipcore.telephone import NumberRule, digits, normal, spellings

log = logging.getLogger("ramal.authsvc")

SEARCHES = Counter("ramal_authsvc_ldap_searches", "Searches sent to the directory.")
NAMES = Counter("ramal_authsvc_ldap_names", "Names asked for in these searches.")

CONNECTING = 2
"""Connections opened at one time."""
PROBE_SECONDS = 1.0
_PROBE = "ramal-probe"


class LdapUsers:
    """A source of users and of numbers (see `authsvc.users.directory`)."""

    name = "ldap"

    def __init__(self, settings: LdapSettings, domains: Mapping[str, Domain]) -> None:
        """`domains` that are served: for their algorithms a password is turned into HA1s."""
        self._settings = settings
        self._domains = {
            name: domain
            for name, domain in domains.items()
            if not settings.domains or name in {each.lower() for each in settings.domains}
        }
        self._attributes = [settings.uid_attribute]
        if settings.password_attribute:
            self._attributes.append(settings.password_attribute)
        self._attributes.extend(settings.ha1_attributes.values())
        self._server = server_of(settings)
        self._threads = ThreadPoolExecutor(CONNECTING, "ldap")
        self._idle: list[Any] = []
        self._probing: asyncio.Task[None] | None = None
        self._stopped = False
        self.back = asyncio.Event()
        """Set while the directory is not known to be away."""
        self.back.set()
        warn_if_insecure(settings)

    @property
    def away(self) -> bool:
        """Whether the last search or probe failed."""
        return not self.back.is_set()

    async def find(self, keys: Collection[Key]) -> dict[Key, User]:
        """The users among these (name, realm) that the directory has; raises LdapUnavailable."""
        here = [key for key in keys if key[1] in self._domains]
        if not here:
            return {}
        if self.away:
            raise LdapUnavailable("the directory is away")
        names = sorted({name for name, _ in here})
        try:
            found = await self._find_entries(names)
        except NO_ANSWER as error:
            self._lost(error)
            raise LdapUnavailable("the directory did not answer") from error
        entries = self._exact(names, found)
        return {key: self._user(key, entries[key[0]]) for key in here if key[0] in entries}

    async def find_numbers(self, keys: Collection[Key]) -> dict[Key, Key]:
        """By number and domain, the user who alone has it; raises LdapUnavailable.

        Values are compared in their one spelling; the search asks for how a number is usually written, where spaces
        and hyphens are the directory's to leave out (telephoneNumberMatch, RFC 4517 section 4.2.29).
        """
        rules = {key[1]: _rule(self._domains[key[1]]) for key in keys if key[1] in self._domains}
        if not rules:
            return {}
        if self.away:
            raise LdapUnavailable("the directory is away")
        asked = sorted({text for number, domain in keys if domain in rules for text in _written(number, rules[domain])})
        uid, attribute = self._settings.uid_attribute, self._settings.number_attribute
        try:
            entries = await self._search(attribute, asked, [uid, attribute])
        except NO_ANSWER as error:
            # It may be slow for want of an index, which says nothing of searches for users.
            raise LdapUnavailable("the directory did not answer") from error
        found: dict[Key, Key] = {}
        shared: set[Key] = set()
        for entry in entries:
            name = _text(entry, uid)
            for domain, rule in rules.items():
                for number in {normal(number, rule) for number in _numbers(entry, attribute)}:
                    if found.setdefault((number, domain), (name, domain)) != (name, domain) or not name:
                        shared.add((number, domain))
        for number, domain in shared:
            log.warning("a telephone number is of two entries, or of one without a uid", extra={"number": number})
            del found[number, domain]
        return {key: found[key] for key in keys if key in found}

    async def stop(self) -> None:
        """Ends the probe and closes the connections; one that is being opened ends by its own time-out."""
        self._stopped = True
        if self._probing:
            self._probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probing
        self._threads.shutdown(wait=False, cancel_futures=True)
        while self._idle:
            close(self._idle.pop())

    async def _find_entries(self, names: Sequence[str]) -> list[Entry]:
        return await self._search(self._settings.uid_attribute, names, self._attributes)

    def _lost(self, error: BaseException) -> None:
        """Begins to probe; says so once."""
        if self._probing is None and not self._stopped:
            log.warning("the directory is away", extra={"url": self._settings.url, "cause": type(error).__name__})
            self._probing = asyncio.create_task(self._probe(), name="ldap probe")
            self.back.clear()

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await self._find_entries([_PROBE])
            except NO_ANSWER as error:
                log.debug("the directory is still away", extra={"cause": type(error).__name__})
                continue
            log.warning("the directory is back", extra={"url": self._settings.url})
            self._probing = None
            self.back.set()
            return

    async def _search(self, attribute: str, values: Sequence[str], wanted: Sequence[str]) -> list[Entry]:
        """The entries that have one of the values, with these attributes of them."""
        async with asyncio.timeout(self._settings.timeout):
            while True:
                fresh = not self._idle
                connection = await self._connected() if fresh else self._idle.pop()
                try:
                    answers = await self._ask(connection, attribute, values, wanted)
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
                return answers

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

    async def _ask(self, connection: Any, attribute: str, values: Sequence[str], wanted: Sequence[str]) -> list[Entry]:
        settings = self._settings
        message_id = self._server.next_message_id()
        octets = [value.encode() for value in values]
        seconds = max(1, int(settings.timeout))
        SEARCHES.inc()
        NAMES.inc(len(values))
        await send(connection.socket, search(message_id, settings.base, attribute, octets, wanted, seconds))
        entries: list[Entry] = []
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
                elif isinstance(answer, Done):
                    if answer.code != SUCCESS:
                        # Half an answer, or none, must not make a user unknown.
                        raise Malformed(f"the search ended with LDAP result code {answer.code}")
                    return entries

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
        password = _clear_text(entry, settings.password_attribute)
        computed = from_password(name, realm, password, wanted) if password else User()
        if not settings.ha1_attributes:
            return computed
        stored = {algorithm: _text(entry, attribute) for algorithm, attribute in settings.ha1_attributes.items()}
        return from_ha1s(stored).completed(computed)


def _rule(domain: Domain) -> NumberRule:
    return NumberRule(domain.country, domain.area)


def _written(number: str, rule: NumberRule) -> list[str]:
    """How a number may stand in a directory that leaves spaces and hyphens out of comparisons."""
    texts = spellings(number, rule)
    before = f"+{rule.country}{rule.area}"
    if rule.area and texts[0].startswith(before):
        local = texts[0][len(before) :]
        texts += [f"({rule.area}){local}", f"+{rule.country}({rule.area}){local}"]
    return texts


def _numbers(entry: Entry, attribute: str) -> Iterator[str]:
    for value in entry.attributes.get(attribute.lower(), ()):
        if number := digits(value.decode("utf-8", "replace")):
            yield number


def _text(entry: Entry, attribute: str) -> str:
    for value in entry.attributes.get(attribute.lower(), ()):
        return value.decode("utf-8", "replace").strip()
    return ""


def _clear_text(entry: Entry, attribute: str) -> str:
    """The first value that is a password; `{SCHEME}…` is a hash of one (RFC 3112 section 2.3, RFC 2307 section 5.3)."""
    for value in entry.attributes.get(attribute.lower(), ()):
        if value and not (value[:1] == b"{" and b"}" in value):
            return value.decode("utf-8", "surrogateescape")
    return ""
