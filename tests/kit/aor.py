"""An AOR and the commands that it is given."""

from events.commands import (
    Contact,
    DeactivateContacts,
    ExpireContacts,
    RegisterContacts,
    Registration,
    RemoveContacts,
    RemoveFlow,
    ReplyTo,
)
from events.registrations import AorState, BindingsRecorded
from registrar.config import Policy
from registrar.decider import Refusal, decide, evolve

AOR = "alice@example.test"
DESK = "sip:alice@192.0.2.4:5062"
MOBILE = "sip:alice@192.0.2.9"
START = 1_700_000_000_000
SECOND = 1000
POLICY = Policy(expires_deviation=0)


class Aor:
    """One AOR under test: commands go in one after the other, as from its partition."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.state = AorState()
        self.policy = policy
        self.now = START
        self.offset = 100
        self.sent = 0

    def given(self, *args, **kwargs) -> "Aor":
        assert isinstance(self.register(*args, **kwargs), BindingsRecorded)
        return self

    def register(
        self,
        *contacts: str | Contact,
        call_id: str = "call-1",
        cseq: int | None = None,
        branch: str | None = None,
        command_id: str | None = None,
        aor: str = AOR,
        **more,
    ):
        self.sent += 1
        command = RegisterContacts(
            id=command_id or f"id-{self.sent}",
            reply=ReplyTo("edge-1", "boot", START + 10**9),
            user=AOR,
            aor=aor,
            register=Registration(
                call_id=call_id,
                cseq=self.sent if cseq is None else cseq,
                branch=branch or f"z9hG4bK{self.sent}",
                contacts=tuple(Contact(c) if isinstance(c, str) else c for c in contacts),
                **more,
            ),
        )
        return self.when(command)

    def expire(self):
        return self.when(ExpireContacts("expiry", AOR))

    def remove(self, contact: str | None = None):
        return self.when(RemoveContacts("removal", AOR, "olga", contact))

    def kick(self, contact=None):
        return self.when(RemoveContacts("kick", AOR, "olga", contact, kick=True))

    def lose(self, path: str):
        return self.when(RemoveFlow("loss", AOR, path))

    def deactivate(self):
        return self.when(DeactivateContacts("leaving", AOR))

    def when(self, command):
        self.offset += 1
        before = self.state
        decision = decide(self.state, command, self.now, 3, self.offset, self.policy)
        if isinstance(decision, BindingsRecorded):
            self.state = evolve(self.state, decision)
        assert before == self.state or isinstance(decision, BindingsRecorded)
        return decision

    def later(self, seconds: float) -> "Aor":
        self.now += round(seconds * SECOND)
        return self

    @property
    def contacts(self) -> list[str]:
        return [binding.contact for binding in self.state.bindings]


def kinds(decision: object) -> list[str]:
    assert isinstance(decision, BindingsRecorded), decision
    return [str(change.kind) for change in decision.changes]


def refused(decision: object, status: int, name: str | None = None) -> Refusal:
    assert isinstance(decision, Refusal), decision
    assert decision.status == status
    assert name in (None, decision.name)
    return decision
