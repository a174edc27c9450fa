"""What the services of one process stand on: settings, a log each, a database; distributed or embedded."""

import asyncio
import contextlib
import dataclasses
import importlib.util
import logging
import shlex
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge.core.gateways.routes import Gateway, GatewaysConfig
from ramal.directory import DATABASE, ENROLMENT_KEYS, USERS, started_with
from ramal.extras import installing
from runtime.config import PREFIX, Common, Kafka, MySQL, Sources
from runtime.database.port import Database
from runtime.errors import ConfigError, Unavailable
from runtime.log.port import Log
from runtime.service import Resource, Service
from runtime.store import EmbeddedStore

log = logging.getLogger("ramal")

SERVICES = ("edge", "authsvc", "registrar", "locator", "cdr", "analytics", "console")
"""In the order in which they stop: an edge first, then those that answer it."""
OPEN_SECONDS = 10.0
NEED_TABLES = frozenset({"edge", "authsvc", "locator", "cdr", "console"})
NEED_LOG = frozenset({"edge", "authsvc", "registrar", "locator", "cdr", "analytics", "console"})


@dataclasses.dataclass(frozen=True)
class System:
    """Where the log and the tables are. `resources` collects what has to be started, in order."""

    sources: Sources
    common: Common
    database: Database
    new_log: Callable[[str], Log]
    """A log object for one service, by its name."""
    store: EmbeddedStore | None = None
    """The one file of an embedded system."""
    questions: Database | None = None
    """The tables for who takes long to read them, where that would keep others waiting."""
    hint: str = ""
    """What to tell a person when it is away, beside the reason."""

    def services(self, names: Sequence[str]) -> tuple[list[Service], list[Resource]]:
        """The named services and what they need started before them. Raises ConfigError."""
        resources: list[Resource] = [] if self.store is None else [self.store]
        if NEED_TABLES.intersection(names):
            resources.append(self.database)
        services = []
        for name in names:
            log = self.new_log(name)
            if name in NEED_LOG:
                resources.append(log)
            # Imported here: an edge's process has no use for an LDAP client.
            build: Callable[[Sources, Log, Database], Service] = importlib.import_module(self._module(name)).build
            database = self.database
            if name == "console" and self.questions:
                resources.append(database := self.questions)
            services.append(build(self.sources, log, database))
        return services, resources

    def _module(self, name: str) -> str:
        """Where a service is built. Raises ConfigError where a package that it needs is not installed."""
        if name != "analytics":
            return f"{name}.service"
        if self.store is not None:
            return "cdr.figures"
        if importlib.util.find_spec("faust") is None:
            raise ConfigError(f"analytics needs Faust, which is not installed: {installing('analytics')}")
        return "cdr.analytics"

    @contextlib.asynccontextmanager
    async def tables(self) -> AsyncIterator[Database]:
        """The database, open."""
        async with self._open([self.database]):
            yield self.database

    @contextlib.asynccontextmanager
    async def log(self) -> AsyncIterator[Log]:
        """The log, open."""
        log = self.new_log("ramal")
        async with self._open([log]):
            yield log

    @contextlib.asynccontextmanager
    async def _open(self, wanted: Sequence[Resource]) -> AsyncIterator[None]:
        started: list[Resource] = []
        try:
            for resource in [*([self.store] if self.store else []), *wanted]:
                started.append(resource)
                try:
                    # A service waits for Kafka as long as it takes; a person at a terminal wants to be told.
                    async with asyncio.timeout(OPEN_SECONDS):
                        await resource.start()
                except TimeoutError:
                    why = f": {away}" if (away := getattr(resource, "away", "")) else ""
                    raise Unavailable(
                        f"Kafka does not answer within {OPEN_SECONDS:.0f} s (RAMAL_KAFKA_BOOTSTRAP){why}{self.hint}"
                    ) from None
                except Unavailable as error:
                    raise Unavailable(f"{error}{self.hint}") from error
            yield
        finally:
            for resource in reversed(started):
                await resource.stop(2.0)


def is_configured(sources: Sources) -> bool:
    """Whether anything says where Kafka or MySQL is."""
    named = ("RAMAL_KAFKA_BOOTSTRAP", "RAMAL_MYSQL_HOST", "RAMAL_MYSQL_PORT")
    return any(name in sources.environ for name in named) or "kafka" in sources.file or "mysql" in sources.file


def distributed(sources: Sources) -> System:
    """Over Kafka and MySQL, as the settings say. Raises ConfigError."""
    from runtime.database.mysql import MySQLDatabase
    from runtime.log.kafka.log import KafkaLog

    common, kafka = sources.section(Common), sources.section(Kafka, "kafka")

    def new_log(name: str) -> Log:
        return KafkaLog(kafka, common.topic_prefix, common.partitions, f"ramal-{name}", common.name)

    hint = "" if is_configured(sources) else "; an embedded system (`ramal up`) is asked with --data DIR"
    return System(sources, common, MySQLDatabase(sources.section(MySQL, "mysql")), new_log, hint=hint)


def embedded(directory: Path, sources: Sources) -> System:
    """In one SQLite file of this directory. Raises ConfigError."""
    from runtime.database.sqlite import SQLiteDatabase
    from runtime.log.embedded.log import EmbeddedLog

    common = sources.section(Common)
    store = EmbeddedStore(directory / DATABASE)
    return System(
        sources,
        common,
        SQLiteDatabase(store),
        lambda _: EmbeddedLog(store, common.partitions),
        store,
        SQLiteDatabase(store, "questions"),
    )


def system_at(data: Path | None, sources: Sources) -> System:
    """The embedded system of an existing directory, or the distributed one. Raises ConfigError."""
    if data is None:
        return distributed(sources)
    if not (data / DATABASE).exists():
        raise ConfigError(f"--data {data}: there is no Ramal there (`ramal up --data {data}` makes one)")
    return embedded(data, with_enrolment_keys(data, with_settings(sources, remembered(data), {})))


def remembered(directory: Path) -> dict[str, Any]:
    """Of the settings that an embedded system was last started with, those that its records and users hang on, and
    where its users and their LDAP directory are; without any secret."""
    last = started_with(directory)
    shared = last.get("", {})
    names = ("domain", "domains", "partitions", "topic_prefix")
    kept: dict[str, Any] = {name: shared[name] for name in names if name in shared}
    file = last.get("authsvc", {}).get("users_file", USERS)
    # The directory's own file goes where the directory goes: a copy of it has users of its own.
    own = directory / Path(file).name
    kept["authsvc"] = {"users_file": file if not file or Path(file).is_absolute() else str(own)}
    ldap = {key: value for key, value in last.get("ldap", {}).items() if key != "bind_password"}
    return {**kept, "ldap": ldap} if ldap.get("url") else kept


def with_enrolment_keys(directory: Path, sources: Sources) -> Sources:
    """Settings with the directory's file of keys where nothing else says which they are."""
    named = ("RAMAL_ENROLMENT_KEYS", "RAMAL_ENROLMENT_KEYS_FILE")
    path = directory / ENROLMENT_KEYS
    if any(name in sources.environ for name in named) or "keys" in sources.file.get("enrolment", {}):
        return sources
    return with_settings(sources, {}, {named[1]: str(path)} if path.exists() else {})


def with_settings(sources: Sources, defaults: Mapping[str, Any], options: Mapping[str, str | None]) -> Sources:
    """Settings with ours beneath them and a command's options above them.

    `defaults` has the shape of ramal.toml and counts where neither it nor the environment says otherwise;
    `options` are RAMAL_… variables, None where the option was not given.
    """
    file = dict(sources.file)
    for key, value in defaults.items():
        if isinstance(value, Mapping):
            given = file.get(key, {})
            file[key] = {**value, **given} if isinstance(given, Mapping) else given
        else:
            file.setdefault(key, value)
    environ = {**sources.environ, **{name: text for name, text in options.items() if text is not None}}
    return Sources(environ, file, sources.path)


def exported(sources: Sources) -> str:
    """Lines for a shell: every RAMAL_… variable in force, and the file if there is one, good in any directory."""
    variables = {name: value for name, value in sources.environ.items() if name.startswith(PREFIX)}
    if sources.file:
        variables["RAMAL_CONFIG"] = sources.path
    for name, value in variables.items():
        if value and (name == "RAMAL_CONFIG" or name.endswith("_FILE")):
            variables[name] = str(Path(value).resolve())
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def sections(sources: Sources) -> dict[str, msgspec.Struct]:
    """Every section of the configuration by name, typed, names checked. Raises ConfigError."""
    kinds = section_kinds()
    for name in sources.check_names(kinds):
        log.warning("there is no such setting; it counts for nothing", extra={"setting": name})
    return {name: sources.section(kind, name) for name, kind in kinds.items()}


class Shared(Common, frozen=True, forbid_unknown_fields=True):
    """Section "": what all services share, and what the edge alone reads there (`GatewaysConfig`)."""

    gateways: dict[str, Gateway] = msgspec.field(default_factory=dict)
    """Ways to the telephone network, by name."""
    emergency: tuple[str, ...] = GatewaysConfig().emergency
    """Numbers that every caller may call; dialled as they stand here."""


def section_kinds() -> dict[str, type[msgspec.Struct]]:
    """The type of every section of the configuration, by name."""
    from authsvc.config import AuthSettings, EnrolmentSettings, LdapSettings
    from cdr.config import Analytics
    from cdr.config import Settings as CdrSettings
    from console.config import ConsoleConfig
    from edge.config import EdgeConfig
    from locator.config import Settings as LocatorSettings
    from registrar.config import Policy

    return {
        "": Shared,
        "kafka": Kafka,
        "mysql": MySQL,
        "edge": EdgeConfig,
        "authsvc": AuthSettings,
        "ldap": LdapSettings,
        "enrolment": EnrolmentSettings,
        "registrar": Policy,
        "locator": LocatorSettings,
        "cdr": CdrSettings,
        "analytics": Analytics,
        "console": ConsoleConfig,
    }
