"""Decisions as records: RegisterContacts to the registrar, Refused to the edge, failures to the audit."""

from authsvc.audit import AuditRate
from authsvc.decider import Accept, Refuse
from events.audit import AuthenticationFailed
from events.commands import Authenticate, RegisterContacts
from events.replies import Refused
from events.topics import AUDIT, EDGE_REPLIES, REGISTRAR_COMMANDS, partition_of
from events.wire import cloud_event, encode
from runtime.log.port import Append
from runtime.metrics import dropped

SOURCE = "authsvc"
REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    500: "Server Internal Error",
    503: "Service Unavailable",
}


class Answers:
    """Appends of one service; it knows how many partitions each topic has."""

    def __init__(self) -> None:
        self.partitions: dict[str, int] = {}
        """By topic; filled in before the first decision."""
        self._rate = AuditRate()

    def write(self, out: list[Append], command: Authenticate, decision: Accept | Refuse, at: int) -> None:
        """Adds the records of one decision, made on a command appended `at` (milliseconds)."""
        if isinstance(decision, Accept):
            out.append(self._register(command, decision))
            return
        out.append(self._refused(command, decision))
        if decision.failure:
            if self._rate.allows(command.source, at):
                out.append(self._audit(command, decision.failure))
            else:
                dropped("audit-over-rate")

    def _register(self, command: Authenticate, decision: Accept) -> Append:
        aor = decision.aor
        return Append(
            REGISTRAR_COMMANDS,
            partition_of(aor, self.partitions[REGISTRAR_COMMANDS]),
            aor.encode(),
            encode(RegisterContacts(command.id, command.reply, decision.user, aor, command.register)),
            cloud_event("ramal.RegisterContacts", SOURCE, command.id),
        )

    def _refused(self, command: Authenticate, decision: Refuse) -> Append:
        reply = command.reply
        refused = Refused(
            command.id,
            reply.edge,
            reply.boot,
            decision.status,
            REASONS[decision.status],
            (("Retry-After", str(decision.retry_after)),) if decision.retry_after else (),
            decision.stale,
            decision.algorithms,
        )
        return Append(
            EDGE_REPLIES,
            partition_of(reply.edge, self.partitions[EDGE_REPLIES]),
            reply.edge.encode(),
            encode(refused),
            cloud_event("ramal.Refused", SOURCE, command.id),
        )

    def _audit(self, command: Authenticate, failure: str) -> Append:
        user = f"{command.digest.username}@{command.digest.realm}"
        return Append(
            AUDIT,
            partition_of(user, self.partitions[AUDIT]),
            user.encode(),
            encode(AuthenticationFailed(user, command.aor, command.source, failure)),
            cloud_event("ramal.AuthenticationFailed", SOURCE, command.id),
        )
