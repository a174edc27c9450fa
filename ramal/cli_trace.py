"""`ramal trace`: to an OpenTelemetry collector."""

import sys
from typing import Annotated
from urllib.parse import urlsplit

import typer

from ramal.asking import Data, data, example, run, system
from ramal.tracing.follow import follow
from runtime.errors import ConfigError

app = typer.Typer()


@app.command("trace", epilog=example("ramal trace http://127.0.0.1:4318"))
def trace_command(
    url: Annotated[str, typer.Argument(metavar="URL", help="The collector's OTLP over HTTP, without /v1/traces.")],
    data_: Data = None,
) -> None:
    """Sends one trace of each registration and of each call to an OpenTelemetry collector, from now on; Ctrl-C ends it.

    It reads the log, so no service does anything for it. No person's name or address is in a span.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"URL: {url!r} is not like http://127.0.0.1:4318")
    run(follow(system(data(data_)), url.rstrip("/"), lambda text: print(f"ramal: {text}", file=sys.stderr, flush=True)))
