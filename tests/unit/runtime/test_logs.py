"""Logs: JSON for programs, words for people, and nothing that breaks a line or a terminal."""

import json
import logging

import pytest

from runtime.logs import JsonFormatter, WordsFormatter


def record(message: str, level: int = logging.INFO, **details: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "ramal.test", "levelno": level, "levelname": logging.getLevelName(level)})
    made.msg = message
    vars(made).update(details)
    return made


def test_p24_a_line_of_json_stays_one_line_whatever_is_in_it() -> None:
    line = JsonFormatter().format(record("registered", aor="alice\r\nlevel: none", contact="sip:a@b"))

    assert line.count("\n") == 0
    assert json.loads(line)["aor"] == "alice\r\nlevel: none"


def test_in_words_it_is_the_time_of_day_what_happened_and_the_details() -> None:
    line = WordsFormatter().format(record("registered", aor="alice@example.test", source="192.0.2.4"))

    assert line[8:] == " registered (aor alice@example.test, source 192.0.2.4)"
    assert WordsFormatter().format(record("the log is away", logging.WARNING))[8:] == " WARNING: the log is away"


def test_what_happened_together_is_one_record_and_a_line_each_in_json_and_in_words() -> None:
    together = record("call", domain="example.test", each=[{"code": 200}, {"code": 480, "call_id": "b\r\nc"}])

    lines = [json.loads(line) for line in JsonFormatter().format(together).split("\n")]
    assert [(line["message"], line["domain"], line["code"]) for line in lines] == [
        ("call", "example.test", 200), ("call", "example.test", 480)
    ]  # fmt: skip
    assert lines[1]["call_id"] == "b\r\nc"
    assert [line[8:] for line in WordsFormatter().format(together).split("\n")] == [
        " call (domain example.test, code 200)",
        " call (domain example.test, code 480, call_id b\\r\\nc)",
    ]


@pytest.mark.parametrize("bad", ["\x1b[2J", "\r\n14:05:03 registered", "\x07", "\u202e"])
def test_p24_what_strangers_write_does_not_steer_the_terminal(bad: str) -> None:
    line = WordsFormatter().format(record("authentication failed", user=f"alice{bad}"))

    assert line.isprintable()
