"""`ramal trace`: to an OpenTelemetry collector."""

import sys
from base64 import b64encode
from typing import Annotated
from urllib.parse import unquote_to_bytes, urlsplit

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
    base, headers = _collector(url)
    run(follow(system(data(data_)), base, headers, lambda text: print(f"ramal: {text}", file=sys.stderr, flush=True)))


def _collector(url: str) -> tuple[str, dict[str, str]]:
    """The URL without user and password, and these as a header. Raises ConfigError, which does not show them either."""
    try:
        parts = urlsplit(url)
        _ = parts.port
        good = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
    except ValueError:
        good = False
    if not good:
        raise ConfigError("URL: is not like http://127.0.0.1:4318")
    userinfo, _, place = parts.netloc.rpartition("@")
    base = f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
    if not userinfo:
        return base, {}
    return base, {"Authorization": "Basic " + b64encode(unquote_to_bytes(userinfo)).decode()}
