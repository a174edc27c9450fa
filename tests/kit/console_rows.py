"""Many registrations and calls, written straight into the tables of an embedded system: a console must stay fast."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

MINUTE = 60_000
HOUR = 60 * MINUTE


def fill(database: Path, now: int, *, registrations: int, calls: int) -> None:
    """Of `now`, in milliseconds: all registered for an hour, a call every second before."""
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        connection.executemany(
            "INSERT INTO location (contact_id, username, domain, contact, received, expires, callid, cseq, user_agent,"
            " socket, granted, expires_ms, created_ms, updated_ms) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            _bindings(now, registrations),
        )
        connection.executemany(
            "INSERT INTO registration_history (contact_id, began_offset, partition_no, username, domain, contact,"
            " received, path, socket, user_agent, since_ms, began, began_by) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            _intervals(now, registrations),
        )
        connection.executemany(
            "INSERT INTO cdrs (id, call_id, from_tag, cseq, outcome, caller, callee, dialled, attempted_ms, rang_ms,"
            " answered_ms, ended_ms, setup_ms, talk_ms, code, phrase, hung_up, edges, published,"
            " state) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            _calls(now, calls),
        )


def _bindings(now: int, count: int) -> Iterator[tuple[object, ...]]:
    for number in range(count):
        _, _, contact, received, socket, agent = _phone(number)
        yield (
            *(1_000_000 + number, f"user{number:06d}", "example.test", contact, received),
            *((now + HOUR) // 1000, f"call-{number}", 1, agent, socket, 3600, now + HOUR, now - HOUR, now - MINUTE),
        )


def _intervals(now: int, count: int) -> Iterator[tuple[object, ...]]:
    for number in range(count):
        user, domain, contact, received, socket, agent = _phone(number)
        yield (
            *(1_000_000 + number, number, 0, user, domain, contact, received, "", socket, agent),
            *(now - HOUR, "created", user),
        )


def _phone(number: int) -> tuple[str, str, str, str, str, str]:
    user, host = f"user{number:06d}", f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    contact, received = f"sip:{user}@{host}:5060", f"sip:{host}:5060;transport=udp"
    return user, "example.test", contact, received, f"edge-{number % 3 + 1}", f"Desk phone {number % 7}"


def _calls(now: int, count: int) -> Iterator[tuple[object, ...]]:
    for number in range(count):
        begun = now - number * 1000 - HOUR
        outcome, code, phrase = (("answered", 200, "OK"), ("failed", 486, "Busy Here"), ("cancelled", 487, "Gone"))[
            number % 3
        ]
        answered = begun + 4000 if outcome == "answered" else None
        yield (
            *(
                (1_000_000 + number) << 10,
                f"filled-{number}@example.test",
                "t",
                1,
                outcome,
                f"user{number:06d}@example.test",
            ),
            *(f"user{number + 1:06d}@example.test", f"{number + 1}", begun, begun + 500, answered, begun + 64_000),
            *(4000, 60_000 if answered else 0, code, phrase, "caller" if answered else "", "edge-1", 1, "[]"),
        )
