"""Logs: one line a record on standard error, JSON for programs, words on a terminal; secrets are never in them.

log = logging.getLogger("ramal.edge")
log.warning("reply came too late", extra={"call_id": call_id, "aor": aor})
log.info("call", extra={EACH: [{"call_id": a}, {"call_id": b}]})  # a line each, for the price of little more than one
"""

import logging
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import orjson

EACH = "each"
"""Of a log record's extras: the details of several things that happened together, none of them empty."""
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", EACH}


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; CR and LF in values come out escaped (CHECKLIST P24)."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _PLAIN)
        if record.exc_info:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        each = _each(record)
        if not each:
            return _json(line).decode()
        head = _json(line)[:-1] + b","
        return b"\n".join([head + _json(details)[1:] for details in each]).decode()


class WordsFormatter(logging.Formatter):
    """A log record as one line for people: the time of day, what happened, and its details."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        level = "" if record.levelno <= logging.INFO else f"{record.levelname}: "
        head = f"{when} {level}{_plain(record.getMessage())}"
        more = {key: value for key, value in vars(record).items() if key not in _PLAIN}
        lines = []
        for each in _each(record) or ({},):
            details = [f"{key} {_plain(value)}" for key, value in {**more, **each}.items()]
            lines.append(head + (f" ({', '.join(details)})" if details else ""))
        if record.exc_info:
            lines.append("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return "\n".join(lines)


def _each(record: logging.LogRecord) -> Sequence[Mapping[str, object]]:
    """What its lines have of their own; nothing of a record that is one line."""
    each: Sequence[Mapping[str, object]] = vars(record).get(EACH, ())
    return each


def _json(line: Mapping[str, object]) -> bytes:
    return orjson.dumps(line, default=_text, option=orjson.OPT_NON_STR_KEYS)


def _plain(value: object) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


def _text(value: object) -> str:
    return repr(value)


def configure(level: str = "INFO") -> None:
    """Sends all logs of this process to standard error: as JSON lines, or in words if that is a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(WordsFormatter() if sys.stderr.isatty() else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Nobody reads them in these lines, and each costs as much as the line itself.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # aiokafka says every retry at ERROR; runtime.log.kafka says each change of state once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
