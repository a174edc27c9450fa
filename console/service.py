"""Wiring of the console: the public's page on a listener of its own, the operators' on the operators' listener."""

import logging
from collections.abc import Sequence

from authsvc.config import EnrolmentSettings, LdapSettings
from authsvc.enrolment import Enroller
from authsvc.users.ldap_people import LdapPeople
from authsvc.users.sealing import Keys
from console.accounts import Accounts
from console.config import ConsoleConfig
from console.directory import LdapOperators
from console.enrolment import EnrolmentPage
from console.gate import Gate
from console.operators import Operators
from console.pages import pages
from runtime.config import Common, Sources
from runtime.database.port import Database
from runtime.errors import ConfigError
from runtime.http import Route
from runtime.log.port import Log
from runtime.pages import PageServer

log = logging.getLogger("ramal.console")


class ConsoleService:
    """The console in one process (see `runtime.service.Service`)."""

    name = "console"

    def __init__(
        self,
        config: ConsoleConfig,
        common: Common,
        log_: Log,
        database: Database,
        directory: LdapOperators | None = None,
        enroller: Enroller | None = None,
    ) -> None:
        domain = common.domain.lower()
        self._enroller = enroller
        for_users: Sequence[Route] = EnrolmentPage(enroller, config).routes if enroller else ()
        self.server: PageServer | None = PageServer(config.host, config.port, pages(config, domain), for_users)
        """Of the softphone; None where an edge serves it."""
        self._directory = directory
        gate = Gate(Accounts(config.operators_file), config, directory)
        self._operators = Operators(gate, config, domain, log_, database)
        self.routes: Sequence[Route] = (*self._operators.routes, *for_users)

    async def start(self) -> None:
        """Listens; raises OSError when the address is taken."""
        self._operators.start()
        if self._directory:
            self._directory.start()
        if self.server:
            await self.server.start()
            log.info("serves its pages", extra={"host": self.server.host, "port": self.server.port})

    async def stop(self, deadline: float) -> None:
        """Ends its listener, which takes a second at the most, and its streams."""
        await self._operators.stop()
        if self._directory:
            await self._directory.stop()
        if self._enroller:
            self._enroller.stop()
        if self.server:
            await self.server.stop()

    def status(self) -> dict[str, str]:
        return {}

    def not_ready(self) -> list[str]:
        return []


def build(sources: Sources, log: Log, database: Database) -> ConsoleService:
    """The service of these settings; raises ConfigError."""
    config = sources.section(ConsoleConfig, "console").checked()
    common = sources.section(Common)
    enroller = _enroller(common, sources, log, database)
    return ConsoleService(config, common, log, database, _directory(config, sources), enroller)


def _enroller(common: Common, sources: Sources, log: Log, database: Database) -> Enroller | None:
    settings, directory = sources.section(EnrolmentSettings, "enrolment"), sources.section(LdapSettings, "ldap")
    if not (settings.keys and directory.url):
        return None
    keys = Keys(lambda: str(sources.section(EnrolmentSettings, "enrolment").keys))
    return Enroller(settings, directory, common.served(), keys, database, log)


def _directory(config: ConsoleConfig, sources: Sources) -> LdapOperators | None:
    if not config.groups:
        return None
    settings = sources.section(LdapSettings, "ldap")
    if not settings.url:
        raise ConfigError("RAMAL_LDAP_URL: is not set, but RAMAL_CONSOLE_GROUPS is")
    return LdapOperators(LdapPeople(settings), config.groups)
