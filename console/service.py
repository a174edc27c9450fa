"""Wiring of the console. Its pages need neither the log nor the tables yet: the softphone talks to an edge."""

from collections.abc import Sequence

from console.config import ConsoleConfig
from console.pages import routes
from runtime.config import Common, Sources
from runtime.database.port import Database
from runtime.http import Route
from runtime.log.port import Log


class ConsoleService:
    """The console in one process (see `runtime.service.Service`)."""

    name = "console"

    def __init__(self, config: ConsoleConfig, common: Common) -> None:
        self.routes: Sequence[Route] = routes(config, common.domain.lower())

    async def start(self) -> None:
        """Nothing: its routes are served by the process's HTTP server."""

    async def stop(self, deadline: float) -> None:
        """Nothing either."""

    def status(self) -> dict[str, str]:
        return {}

    def not_ready(self) -> list[str]:
        return []


def build(sources: Sources, log: Log, database: Database) -> ConsoleService:
    """The service of these settings; raises ConfigError."""
    del log, database
    return ConsoleService(sources.section(ConsoleConfig, "console").checked(), sources.section(Common))
