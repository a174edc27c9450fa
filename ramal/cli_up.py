"""The command `ramal up`."""

from pathlib import Path
from typing import Annotated

import typer

from ramal.asking import HERE, Domain, console, example, run
from ramal.directory import only_one
from ramal.system import sections
from runtime import logs
from runtime.config import Common, Sources

app = typer.Typer()


@app.command("up", epilog=example("ramal up --data ./ramal-data --domain example.test --host 0.0.0.0 --self-signed"))
def up_command(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Where everything is kept.")] = HERE,
    sip_port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=1, max=65535, help="UDP and TCP; TLS at the next one. 5060 without it."),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where the page is served; 0.0.0.0: on all addresses.")
    ] = "127.0.0.1",
    page_port: Annotated[
        int | None,
        typer.Option(
            "--page-port",
            "--ws-port",
            metavar="PORT",
            min=1,
            max=65535,
            help="Of the page; 8081, with TLS 8443 without it.",
        ),
    ] = None,
    tls: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="CERT KEY", help="Serve the page by https, and SIP over TLS: two PEM files."),
    ] = None,
    self_signed: Annotated[
        bool, typer.Option("--self-signed", help="The same with a certificate of our making, for a trial.")
    ] = False,
    http_port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="Of health and metrics, on loopback; 8080 without it."),
    ] = None,
    domain: Domain = None,
) -> None:
    """Everything in this process: log and tables in one file, alice and bob as first users, a page with a telephone."""
    from edge.config import EdgeConfig
    from ramal.page import PageOptions
    from ramal.sockets import check_ports
    from ramal.up import settings, up

    page = PageOptions(host, page_port, tls, self_signed)
    sources = settings(data, Sources.read(), domain=domain, sip_port=sip_port, http_port=http_port, page=page)
    logs.configure(sources.section(Common).log_level)
    sections(sources)
    if data.is_dir():
        with only_one(data):
            pass  # who runs there holds the ports, too: say so before
    check_ports(sources.section(EdgeConfig, "edge"), sources.section(Common))
    with only_one(data):
        run(up(data, sources, console, page))
