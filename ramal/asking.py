"""What the commands that ask something share: options, the system that they ask, and how they say what it answered."""

import sys
from collections.abc import Coroutine, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvloop
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from ramal import wording
from ramal.directory import DATABASE
from ramal.system import System, is_configured, section_kinds, system_at, with_settings
from runtime import logs
from runtime.config import Common, Sources
from runtime.errors import ConfigError

T = TypeVar("T")

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="An embedded system's directory (running or not); else Kafka and MySQL, or ./ramal-data if none is named.",
    ),
]
Aor = Annotated[str, typer.Argument(metavar="AOR", help="[bold]alice@example.test[/bold], or alice alone.")]
OptionalAor = Annotated[str | None, typer.Argument(metavar="AOR", help="Of one user; everybody without it.")]
Domain = Annotated[str | None, typer.Option("--domain", metavar="D", help="The SIP domain; RAMAL_DOMAIN without it.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
HERE = Path("ramal-data")
"""Where `ramal up` keeps everything unless told otherwise."""


class Terminal(Console):
    """A console on which what phones and callers have written is shown and never obeyed."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is to be written: controls of our own, and texts as they are shown."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(wording.shown(segment.text), segment.style)


# In a pipe nothing is folded: it is read by grep, not by eyes.
console = Terminal(highlight=False, width=None if sys.stdout.isatty() else 400)


def example(text: str) -> str:
    """What `--help` ends with."""
    return f"Example: [bold]{text}[/bold]"


def system(data: Path | None, settings: Mapping[str, str] | None = None) -> System:
    """For a command that asks or does one thing: what the system stands on. Its errors are said, not logged."""
    sources = Sources.read()
    sources.check_names(section_kinds())
    level = sources.section(Common).log_level
    logs.configure(level if "RAMAL_LOG_LEVEL" in sources.environ else "CRITICAL")
    return system_at(data, with_settings(sources, {}, settings or {}))


def data(data: Path | None) -> Path | None:
    """Where to ask: of two systems, one that the settings name before the directory that lies here."""
    if data is None and (HERE / DATABASE).exists() and not is_configured(Sources.read()):
        print(f"ramal: this is about ./{HERE} (--data {HERE})", file=sys.stderr)
        return HERE
    return data


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a command to its end."""
    return uvloop.run(main)


def aor(text: str, system: System, domain: str | None, *, served: bool = False) -> str:
    """The AOR that somebody typed; raises ConfigError, with `served` also where its domain is not ours."""
    try:
        found = wording.aor(text, domain or system.common.domain)
    except ValueError as error:
        raise ConfigError(f"AOR: {error}") from error
    if (there := found.rpartition("@")[2]) not in system.common.served():
        if served:
            raise ConfigError(f"AOR: the domain {there} is not served; served: {', '.join(system.common.served())}")
        print(f"ramal: the domain {there} is not served; what it left behind is asked for", file=sys.stderr)
    return found


def moment(option: str, text: str, default: int) -> int:
    """A time that somebody typed, in milliseconds since 1970; the default for an empty text. Raises ConfigError."""
    if not text:
        return default
    try:
        return int(wording.point_in_time(text, datetime.now().astimezone()).timestamp() * 1000)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error
