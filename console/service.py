"""Wiring of the console. Its pages need neither the log nor the tables yet: the softphone talks to an edge."""

import logging
from collections.abc import Sequence

from console.config import ConsoleConfig
from console.pages import pages
from runtime.config import Common, Sources
from runtime.database.port import Database
from runtime.http import Route
from runtime.log.port import Log
from runtime.pages import PageServer

log = logging.getLogger("ramal.console")


class ConsoleService:
    """The console in one process (see `runtime.service.Service`); its pages have a listener of their own."""

    name = "console"
    routes: Sequence[Route] = ()

    def __init__(self, config: ConsoleConfig, common: Common) -> None:
        self.server = PageServer(config.host, config.port, pages(config, common.domain.lower()))

    async def start(self) -> None:
        """Listens; raises OSError when the address is taken."""
        await self.server.start()
        log.info("serves its pages", extra={"host": self.server.host, "port": self.server.port})

    async def stop(self, deadline: float) -> None:
        """Ends its listener, which takes a second at the most."""
        await self.server.stop()

    def status(self) -> dict[str, str]:
        return {}

    def not_ready(self) -> list[str]:
        return []


def build(sources: Sources, log: Log, database: Database) -> ConsoleService:
    """The service of these settings; raises ConfigError."""
    del log, database
    return ConsoleService(sources.section(ConsoleConfig, "console").checked(), sources.section(Common))
