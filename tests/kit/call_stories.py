"""What the tests of calls share: the events of calls as edges tell them, and tables read back."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from cdr.tables import COLUMNS
from events.calls import (
    BranchFinal,
    BranchProvisional,
    BranchStarted,
    CallAnswered,
    CallAttempted,
    CallCancelled,
    CallEnded,
    CallEvent,
    CallFailed,
    CallRedirected,
    CallRefreshed,
    CallRinging,
    event_id,
)
from events.topics import CALLS, partition_of
from events.wire import Happened, encode
from runtime.database.port import Database, Row
from runtime.log.port import Append

START = 1_700_000_000_000
DOMAIN = "example.test"
_numbers = itertools.count(1)


@dataclasses.dataclass
class Story:
    """One call: each method is one thing that happens, `now` the time, `edge` who sees it."""

    call_id: str = ""
    from_tag: str = "ft"
    cseq: int = 1
    now: int = START
    edge: str = "edge-1"
    events: list[CallEvent] = dataclasses.field(default_factory=list)
    parties: tuple[str, str] = ("alice", "bob")

    def __post_init__(self) -> None:
        self.call_id = self.call_id or f"call-{next(_numbers)}@192.0.2.4"

    def _add(self, kind: type[Any], **fields: Any) -> "Story":
        common = {"call_id": self.call_id, "from_tag": self.from_tag, "cseq": self.cseq}
        self.events.append(kind(**common, at=self.now, edge=self.edge, **fields))
        return self

    def wait(self, milliseconds: int) -> "Story":
        """Time passes."""
        self.now += milliseconds
        return self

    def attempted(self, caller: str = "alice", callee: str = "bob", **more: Any) -> "Story":
        self.parties = caller, callee
        fields: dict[str, Any] = {
            "from_uri": f"sip:{caller}@{DOMAIN}",
            "to_uri": f"sip:{callee}@{DOMAIN}",
            "dialled": f"sip:{callee}@{DOMAIN}",
            "caller": f"{caller}@{DOMAIN}",
            "callee": f"{callee}@{DOMAIN}" if callee else "",
            "targets": (f"sip:{callee}@192.0.2.9:5060",),
            "source": "192.0.2.4:5060",
            "transport": "udp",
            "agent": "Desk 1.0",
            "codecs": ("PCMA", "opus"),
        }
        return self._add(CallAttempted, **fields | more)

    def branch(self, branch: str = "b1", **more: Any) -> "Story":
        return self._add(BranchStarted, branch=branch, contact="sip:bob@192.0.2.9", transport="tls", **more)

    def rings(self, branch: str = "b1", to_tag: str = "tt") -> "Story":
        self._add(BranchProvisional, branch=branch, code=180, phrase="Ringing", to_tag=to_tag)
        return self._add(CallRinging, to_tag=to_tag, branch=branch)

    def branch_ends(self, code: int, branch: str = "b1", phrase: str = "", **more: Any) -> "Story":
        more.setdefault("to_tag", "tt" if code < 300 else "")
        return self._add(BranchFinal, branch=branch, code=code, phrase=phrase, **more)

    def answered(self, to_tag: str = "tt", branch: str = "b1", **more: Any) -> "Story":
        fields = {"contact": "sip:bob@192.0.2.9", "transport": "tls", "agent": "Soft 2", "codecs": ("opus",)} | more
        return self._add(CallAnswered, to_tag=to_tag, branch=branch, **fields)

    def refreshed(self, refresh: int = 2, session_expires: int = 1800) -> "Story":
        return self._add(CallRefreshed, to_tag="tt", by="caller", refresh=refresh, session_expires=session_expires)

    def ended(self, by: str = "caller", to_tag: str = "tt", **more: Any) -> "Story":
        caller, callee = self.parties
        fields = {"caller_uri": f"sip:{caller}@{DOMAIN}", "callee_uri": f"sip:{callee}@{DOMAIN}"} | more
        return self._add(CallEnded, to_tag=to_tag, by=by, **fields)

    def failed(self, code: int, phrase: str = "", **more: Any) -> "Story":
        return self._add(CallFailed, code=code, phrase=phrase, **more)

    def cancelled(self, **more: Any) -> "Story":
        return self._add(CallCancelled, **more)

    def redirected(self) -> "Story":
        return self._add(CallRedirected, contacts=("sip:bob@elsewhere.test",))


def talk(caller: str = "alice", callee: str = "bob", *, ring: int = 2000, last: int = 60_000, **more: Any) -> Story:
    """A call that is answered and ended."""
    story = Story(**more).attempted(caller, callee).wait(10).branch().wait(40).rings()
    return story.wait(ring).branch_ends(200).answered().wait(last).ended()


def missed(caller: str = "alice", callee: str = "bob", **more: Any) -> Story:
    """A call that the caller gives up."""
    return Story(**more).attempted(caller, callee).wait(10).branch().wait(40).rings().wait(9000).cancelled()


def append(event: CallEvent, partitions: int) -> Append:
    """The record of an event, as an edge writes it."""
    kind = f"ramal.{type(event).__name__}"
    headers = Happened(kind, event.edge, event_id(event), event.call_id, event.at)
    return Append(CALLS, partition_of(event.call_id, partitions), event.call_id.encode(), encode(event), headers)


async def rows(database: Database, table: str, columns: Sequence[str] = ()) -> list[Row]:
    """What is made of the log in a table, by id."""
    wanted = columns or COLUMNS[table]
    return await database.query(f"SELECT {', '.join(wanted)} FROM {table} ORDER BY id")


async def everything(database: Database) -> dict[str, list[Row]]:
    """All four tables, and which records are noted as published."""
    found = {table: await rows(database, table) for table in COLUMNS}
    found["published"] = await database.query("SELECT id, published FROM cdrs ORDER BY id")
    return found
