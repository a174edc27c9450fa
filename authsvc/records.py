"""Decisions as records: commands to the registrar, replies to the edge, failures to the audit and to the log."""

import logging

from prometheus_client import Counter

from authsvc.decider import LOCKED_OUT, NOT_OWN, UNKNOWN, WITH_DOMAIN, Accept, Called, Refuse
from authsvc.memory.audit_rate import AuditRate
from events.audit import AuthenticationFailed
from events.commands import (
    Authenticate,
    DeactivateContacts,
    FindUser,
    FlowLost,
    RegisterContacts,
    Registration,
    RemoveFlow,
    ReplyTo,
)
from events.replies import Authenticated, Found, Refused, Reply
from events.topics import AUDIT, EDGE_REPLIES, REGISTRAR_COMMANDS, partition_of
from events.wire import cloud_event, encode
from runtime.log.port import Append
from runtime.metrics import dropped

log = logging.getLogger("ramal.authsvc")

SOURCE = "authsvc"
REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    500: "Server Internal Error",
    503: "Service Unavailable",
}


def _tell(command: Authenticate, decision: Refuse) -> None:
    """One line for people, and for fail2ban: `source` stands first, before what a stranger may choose.

    Of a wrong response only where the source was given that nonce: else a forged address would be banned.
    """
    if decision.counts:
        happened = "authentication failed"
    elif decision.failure in (LOCKED_OUT, NOT_OWN):
        happened = decision.failure
    else:
        return
    user = f"{command.digest.username}@{command.digest.realm}"
    log.info(happened, extra={"source": command.source, "user": user, "aor": command.aor, "reason": decision.failure})


FAILURES = Counter("ramal_authsvc_failed_logins", "Failed log-ins, by reason.", ["reason"])
for _reason in (LOCKED_OUT, NOT_OWN, "wrong response", UNKNOWN, WITH_DOMAIN, "no HA1"):
    FAILURES.labels(_reason)


class Answers:
    """Appends of one service; it knows how many partitions each topic has."""

    def __init__(self) -> None:
        self.partitions: dict[str, int] = {}
        """By topic; filled in before the first decision."""
        self._rate = AuditRate()

    def write(self, out: list[Append], command: Authenticate, decision: Accept | Refuse, at: int) -> None:
        """Adds the records of one decision, made on a command appended `at` (milliseconds)."""
        if isinstance(decision, Refuse):
            out.append(self._refused(command, decision))
            if not decision.failure:
                return
            FAILURES.labels(decision.failure).inc()
            if self._rate.allows(command.source, at):
                out.append(self._audit(command, decision.failure))
                _tell(command, decision)
            else:
                dropped("audit-over-rate")
        elif command.register is not None:
            out.append(self._register(command, decision, command.register))
        else:
            out.append(self._authenticated(command, decision))

    def found(self, command: FindUser, decision: Called | Refuse) -> Append:
        """The reply to a `FindUser`."""
        if isinstance(decision, Refuse):
            return self._refused(command, decision)
        reply = command.reply
        return self._reply("ramal.Found", reply, Found(command.id, reply.edge, reply.boot, decision.aor))

    def flow_lost(self, command: FlowLost) -> Append:
        """The command that ends the bindings of a closed connection."""
        remove = RemoveFlow(command.id, command.aor, command.path)
        return self._command("ramal.RemoveFlow", command.aor, command.id, encode(remove))

    def user_gone(self, aor: str, id_: str) -> Append:
        """The command that ends the bindings of a user who is none any more."""
        return self._command("ramal.DeactivateContacts", aor, id_, encode(DeactivateContacts(id_, aor)))

    def _register(self, command: Authenticate, decision: Accept, register: Registration) -> Append:
        value = RegisterContacts(command.id, command.reply, decision.user, decision.aor, register)
        return self._command("ramal.RegisterContacts", decision.aor, command.id, encode(value))

    def _command(self, kind: str, aor: str, id_: str, value: bytes) -> Append:
        partition = partition_of(aor, self.partitions[REGISTRAR_COMMANDS])
        return Append(REGISTRAR_COMMANDS, partition, aor.encode(), value, cloud_event(kind, SOURCE, id_))

    def _authenticated(self, command: Authenticate, decision: Accept) -> Append:
        reply = command.reply
        value = Authenticated(command.id, reply.edge, reply.boot, decision.aor, decision.first)
        return self._reply("ramal.Authenticated", reply, value)

    def _refused(self, command: Authenticate | FindUser, decision: Refuse) -> Append:
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
        return self._reply("ramal.Refused", reply, refused)

    def _reply(self, kind: str, to: ReplyTo, reply: Reply) -> Append:
        partition = partition_of(to.edge, self.partitions[EDGE_REPLIES])
        return Append(EDGE_REPLIES, partition, to.edge.encode(), encode(reply), cloud_event(kind, SOURCE, reply.id))

    def _audit(self, command: Authenticate, failure: str) -> Append:
        user = f"{command.digest.username}@{command.digest.realm}"
        return Append(
            AUDIT,
            partition_of(user, self.partitions[AUDIT]),
            user.encode(),
            encode(AuthenticationFailed(user, command.aor, command.source, failure)),
            cloud_event("ramal.AuthenticationFailed", SOURCE, command.id),
        )
