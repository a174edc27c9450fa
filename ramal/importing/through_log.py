"""Registrations and calls, which the log alone may tell of: commands to the registrar, and events of calls."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from events.calls import KINDS, CallEvent, event_id
from events.commands import RegisterContacts, ReplyTo
from events.replies import Refused, Registered, Reply
from events.topics import CALLS, EDGE_REPLIES, REGISTRAR_COMMANDS, partition_of
from events.wire import Decoder, Happened, Poisoned, cloud_event, encode
from ramal.importing.report import Counted
from ramal.importing.rows import Left, Phone, calls, phone
from ramal.importing.source import Source
from ramal.importing.tables import Ours, Progress
from ramal.operations import operator
from registrar.config import Policy
from runtime.database.port import Database
from runtime.errors import LogUnavailable
from runtime.log.port import Append, Log
from sipcore.uri import equal, parse_uri

SECONDS = 30.0
"""A registrar that has just taken a partition over restores it first."""
TOGETHER = 200
"""Commands whose answers are waited for at one time: phones that register meanwhile wait for no more than these."""
_decode: Decoder[Reply] = Decoder(Reply)


async def registrations(source: Source, ours: Ours, log: Log, policy: Policy, progress: Progress) -> Counted:
    """`location`: a RegisterContacts command for each contact that is not there yet. Raises LogUnavailable."""
    counted, longest = Counted("location"), 0
    async for rows in source.chunks("location"):
        phones: list[Phone] = []
        for row in rows:
            counted.read += 1
            found = phone(row, ours.domain, ours.served, policy.min_expires)
            if isinstance(found, Left):
                counted.leave(found)
            else:
                phones.append(found)
        there = await _registered(ours.tables, [each.aor for each in phones])
        due = [each for each in phones if not _is_there(each, there.get(each.aor, ()))]
        longest = max([longest, *(each.left for each in due)])
        counted.same += len(phones) - len(due)
        counted.new += len(due)
        for first in range(0, len(due), TOGETHER) if ours.write else ():
            for left in await _register(log, due[first : first + TOGETHER]):
                counted.new -= 1
                counted.leave(left)
        progress(len(rows))
    if longest > policy.max_expires:
        counted.notes.append(
            f"phones were granted up to {longest} s there, and come back no sooner; here a registration ends after"
            f" RAMAL_REGISTRAR_MAX_EXPIRES={policy.max_expires}: for the day of the change, set it to {longest}"
        )
    return counted


def _is_there(phone: Phone, contacts: Iterable[str]) -> bool:
    [contact] = phone.registration.contacts
    uri = parse_uri(contact.uri)
    return any(equal(uri, parse_uri(there)) for there in contacts)


async def _registered(tables: Database, aors: Sequence[str]) -> dict[str, list[str]]:
    """By AOR, the contacts in our tables."""
    if not aors:
        return {}
    marks = ", ".join(["%s"] * len(aors))
    names = [aor.rpartition("@")[0] for aor in aors]
    found: dict[str, list[str]] = {}
    for name, domain, contact in await tables.query(
        f"SELECT username, domain, contact FROM location WHERE username IN ({marks})",  # noqa: S608  # values are bound
        names,
    ):
        found.setdefault(f"{name}@{domain}", []).append(str(contact))
    return found


async def _register(log: Log, phones: Sequence[Phone]) -> list[Left]:
    """Those that the registrar refuses; returns when all others are in the tables."""
    name = f"import-{secrets.token_hex(4)}"
    reply = partition_of(name, await log.partitions(EDGE_REPLIES))
    end = (await log.bounds(EDGE_REPLIES, reply)).end
    count = await log.partitions(REGISTRAR_COMMANDS)
    # In the log's time, which this machine's may be some minutes off: late is as good as now.
    to = ReplyTo(name, name, int(time.time() * 1000) + 600_000)
    waiting = {secrets.token_hex(10): each for each in phones}
    by = f"operator:{operator()}"
    await log.append(
        [
            Append(
                REGISTRAR_COMMANDS, partition_of(each.aor, count), each.aor.encode(),
                encode(RegisterContacts(id_, to, by, each.aor, each.registration)),
                cloud_event("ramal.RegisterContacts", "ramal", id_),
            )
            for id_, each in waiting.items()
        ]
    )  # fmt: skip
    refused = []
    try:
        async with asyncio.timeout(SECONDS):
            async with contextlib.aclosing(_replies(log, reply, end)) as replies:  # type: ignore[type-var]
                async for answer in replies:
                    if not (known := waiting.pop(answer.id, None)):
                        continue
                    if isinstance(answer, Refused):
                        refused.append(Left(f"the registrar says {answer.status} {answer.reason}", known.aor))
                    if not waiting:
                        break
    except TimeoutError:
        raise LogUnavailable(
            f"{len(waiting)} of {len(phones)} registrations were not answered within {SECONDS:.0f} s:"
            " do a registrar and a locator run? Import again; what is there is left as it is"
        ) from None
    return refused


async def _replies(log: Log, partition: int, begin: int) -> AsyncIterator[Registered | Refused]:
    async with contextlib.aclosing(log.read(EDGE_REPLIES, partition, begin)) as batches:
        async for batch in batches:
            for record in batch:
                with contextlib.suppress(Poisoned):
                    answer = _decode(record.value)
                    if isinstance(answer, Registered | Refused):
                        yield answer


# --- calls -----------------------------------------------------------------------------------------------------------


async def records(source: Source, ours: Ours, log: Log, progress: Progress) -> Counted:
    """`acc`: events of calls, each at its own time; cdr makes `acc`, `missed_calls` and `cdrs` of them."""
    counted = Counted("acc")
    partitions = await log.partitions(CALLS)
    async for rows in source.chunks("acc"):
        callers = await source.answered(list({str(row["callid"]) for row in rows if row["method"] == "BYE"}))
        there = await _accounted(ours.tables, list({str(row["callid"]) for row in rows}))
        due: list[CallEvent] = []
        for row in rows:
            counted.read += 1
            found = calls(row, callers.get(str(row["callid"]), ()), ours.served, source.kind)
            if isinstance(found, Left):
                counted.leave(found)
            elif (str(row["callid"]), str(row["method"]), str(row["sip_code"])) in there:
                counted.same += 1
            else:
                counted.new += 1
                due += found
        if due and ours.write:
            await log.append([_record(event, partitions) for event in due])
        progress(len(rows))
    if counted.new and not {"src_user", "dst_user"} & set(source.columns("acc")):
        counted.notes.append(
            "it has no columns of the parties (src_user, dst_user …): calls are known by their Call-ID"
        )
    if counted.new and ours.write:
        counted.notes.append("cdr makes rows of the events as it comes to them (`ramal top` shows its lag)")
    return counted


async def _accounted(tables: Database, call_ids: Sequence[str]) -> set[tuple[str, str, str]]:
    """Call-ID, method and code of our rows of these calls."""
    marks = ", ".join(["%s"] * len(call_ids))
    found: list[tuple[Any, ...]] = await tables.query(
        f"SELECT callid, method, sip_code FROM acc WHERE callid IN ({marks})",  # noqa: S608  # values are bound
        call_ids,
    )
    return {(str(call_id), str(method), str(code)) for call_id, method, code in found}


def _record(event: CallEvent, partitions: int) -> Append:
    key = event.call_id
    headers = Happened(KINDS[type(event)], "ramal", event_id(event), key, event.at)
    return Append(CALLS, partition_of(key, partitions), key.encode(), encode(event), headers)
