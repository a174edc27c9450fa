"""`ramal top`: what the system does now, from the health pages of all its processes, in a terminal or as JSON."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from console.health import TIMEOUT, contents, look, named, statistics
from ramal.directory import started_with
from runtime.errors import ConfigError, Unavailable

FIRST_SECONDS = 1.0
"""Between the first two looks: a rate needs two."""
Where = Callable[[], Mapping[str, str]]
"""The base URL of each process, by its name: asked again at each look, for processes come and go."""


def where(urls: Sequence[str], data: Path | None, run_dir: Path) -> Where:
    """The processes that are meant. Raises ConfigError."""
    if urls:
        given = dict(named("--url", url) for url in urls)
        return lambda: given
    stack = run_dir / "stack.json"
    if data is None and stack.exists():
        return lambda: _of_stack(stack)
    if data is None:
        raise ConfigError(f"--url: there is no {stack} and no ./ramal-data here; name the processes, or --data DIR")
    settings = started_with(data).get("", {})
    if not settings:
        raise ConfigError(f"--data {data}: `ramal up` has not run there yet")
    if not settings["http_port"]:
        raise ConfigError(f"--data {data}: it was started with --http-port 0; name its address with --url")
    up = {"up": f"http://{settings['http_host']}:{settings['http_port']}"}
    return lambda: up


def _of_stack(stack: Path) -> dict[str, str]:
    try:
        processes = json.loads(stack.read_text())["processes"]
    except (OSError, ValueError) as error:
        raise Unavailable(f"{stack} cannot be read: the stack has ended") from error
    return {name: f"http://{each['http']}" for name, each in processes.items() if each["http"]}


# --- looking ---------------------------------------------------------------------------------------------------------


async def top(where: Where, console: Console, *, once: bool, as_json: bool, every: float) -> bool:
    """Shows it until Ctrl-C, or once; whether any process answered at the last look."""
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        before = await look(session, where())
        await asyncio.sleep(FIRST_SECONDS)
        live = (
            None
            if once or as_json or not console.is_terminal
            else Live(console=console, screen=True, auto_refresh=False)
        )
        if live:
            live.start()
        try:
            while True:
                urls = where()
                now = await look(session, urls)
                found = contents(before, now, await statistics(session, urls), int(time.time() * 1000))
                if as_json:
                    print(json.dumps(found), flush=True)
                elif live:
                    live.update(screen(found), refresh=True)
                else:
                    console.print(screen(found))
                if once:
                    return any(each.samples for each in now.values())
                before = now
                await asyncio.sleep(every)
        finally:
            if live:
                live.stop()


# --- showing ---------------------------------------------------------------------------------------------------------


def screen(found: Mapping[str, Any]) -> Group:
    """The whole of it."""
    moment = time.strftime("%H:%M:%S", time.localtime(found["at"] / 1000))
    whole = found["overall"]
    responses = "  ".join(f"{name} {rate:g}/s" for name, rate in whole["responses_per_second"].items()) or "none"
    lags = "  ".join(f"{topic} {records}" for topic, records in whole["lag"].items()) or "-"
    ages = "  ".join(f"{name} {age:g} s" for name, age in whole["age_seconds"].items()) or "-"
    lines = [
        Text(f"Ramal at {moment}", style="bold"),
        Text(
            f"Registrations  {whole['bindings']} of {whole['aors']} AORs, {whole['registrations_per_second']:g}/s;"
            f" failed log-ins {whole['failed_logins_per_second']:g}/s"
        ),
        Text(
            f"Responses      {responses}; 503: {whole['unavailable_share']:.1%}",
            style=_alarm(whole["unavailable_share"] > 0.01),
        ),
        Text(f"Calls          {_minute(found['last_minute'], found['this_minute'])}"),
        Text(f"Lag            {lags}"),
        Text(f"Newest in the tables, age  {ages}"),
    ]
    if whole["stopped_partitions"] or whole["dead_letters"]:
        alarm = f"{whole['stopped_partitions']} partitions stopped, {whole['dead_letters']} dead letters"
        lines.append(Text(alarm, style="bold red"))
    return Group(*lines, Text(), _table(found["processes"]))


def _minute(last: Mapping[str, Any] | None, this: Mapping[str, Any] | None) -> str:
    if last is None and this is None:
        return "no statistics"
    progress = (this or last or {}).get("concurrent", 0)
    if last is None:
        return f"{progress} in progress"
    words = [f"{progress} in progress; last minute: {last['attempts']} attempts, {last['answered']} answered"]
    words += [f"{name.upper()} {last[name]:.0%}" for name in ("asr", "ner") if last[name] is not None]
    if last["acd"] is not None:
        words.append(f"ACD {last['acd']:g} s")
    if last["worst_pdd_p95"] is not None:
        words.append(f"PDD p95 {last['worst_pdd_p95']} ms")
    return ", ".join([*words, f"{last['missed']} missed"])


def _table(processes: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("Process")
    for name in ("CPU", "Memory", "Handled", "Lag", "Drops"):
        table.add_column(name, justify="right")
    table.add_column("State", overflow="fold")
    for each in processes:
        table.add_row(
            each["name"],
            f"{each['cpu']:.0%}",
            f"{each['memory_bytes'] / (1 << 20):.0f} MB",
            f"{each['records_per_second']:g}/s",
            str(each["lag"]),
            f"{each['drops_per_second']:g}/s",
            Text("ready" if each["ready"] else "; ".join(each["reasons"]), style="" if each["ready"] else "red"),
        )
    return table


def _alarm(wrong: bool) -> str:
    return "red" if wrong else ""
