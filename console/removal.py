"""A removal of bindings that an operator orders: through the log, with his name, and done when the tables have it."""

import asyncio
import contextlib
import secrets

from console.audited import audited
from events.audit import ContactsRemoved
from events.commands import RemoveContacts
from events.registrations import BindingsRecorded, RegistrationEvent
from events.topics import REGISTRAR_COMMANDS, REGISTRATIONS, partition_of
from events.wire import Decoder, Poisoned, cloud_event, encode
from locator.tables import LIVE
from runtime.database.port import Database
from runtime.database.positions import position
from runtime.errors import LogUnavailable
from runtime.log.port import Append, Log

REMOVAL_SECONDS = 15.0
"""A registrar that has just taken a partition over restores it first."""
_decode: Decoder[RegistrationEvent] = Decoder(RegistrationEvent)


async def removed(
    log: Log,
    tables: Database,
    aor: str,
    contact: str | None,
    operator: str,
    *,
    forget: bool = False,
    kick: bool = False,
) -> BindingsRecorded:
    """What the registrar recorded of a removal, once it is in the tables. Raises LogUnavailable.

    `kick`: the edges then close the connections of what was removed, so that the phones register again.
    """
    count = await log.partitions(REGISTRAR_COMMANDS)
    partition = partition_of(aor, count)
    end = (await log.bounds(REGISTRATIONS, partition)).end
    command = RemoveContacts(secrets.token_hex(10), aor, operator, contact, forget, kick)
    await log.append(await _removal(log, command, partition))
    try:
        async with asyncio.timeout(REMOVAL_SECONDS):
            offset, recorded = await _outcome(log, partition, end, command.id)
            await _projected(tables, partition, offset)
            return recorded
    except TimeoutError:
        raise LogUnavailable(
            f"no registrar answered within {REMOVAL_SECONDS:.0f} s; the removal is in the log and will be done"
        ) from None


async def _removal(log: Log, command: RemoveContacts, partition: int) -> list[Append]:
    """The command, and the audit's record of it."""
    done = ContactsRemoved(command.operator, command.aor, command.contact, command.kick)
    return [
        Append(
            REGISTRAR_COMMANDS,
            partition,
            command.aor.encode(),
            encode(command),
            cloud_event("ramal.RemoveContacts", "ramal", command.id),
        ),
        await audited(log, done, "ramal", command.id),
    ]


async def _outcome(log: Log, partition: int, begin: int, id_: str) -> tuple[int, BindingsRecorded]:
    """The registrar's record of this command, and its offset."""
    async with contextlib.aclosing(log.read(REGISTRATIONS, partition, begin)) as batches:
        async for batch in batches:
            for record in batch:
                with contextlib.suppress(Poisoned):  # a stranger's record: whoever projects it says so
                    event = _decode(record.value)
                    if isinstance(event, BindingsRecorded) and event.id == id_:
                        return record.offset, event
    raise LogUnavailable("the log ended before the registrar's record")


async def _projected(tables: Database, partition: int, offset: int) -> None:
    """Waits until the tables have this record: from then on no edge routes to what was removed."""
    while True:
        at = await position(tables, LIVE.projection, partition)
        if at is not None and at.next > offset:
            return
        await asyncio.sleep(0.05)
