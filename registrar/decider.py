"""RFC 3261 section 10.3, steps 6 to 8: what a command does to the bindings of one AOR.

Pure and deterministic: the same state, command, time, place in the log and policy give the
same decision in every process. A command works on a draft; only if all of it succeeds does
the draft become the event's state (step 7, last paragraph: all or nothing).

Time is the command record's timestamp, never before the AOR's last decision; binding ids come
from the command's offset.

Over 400 lines: the steps of section 10.3 share one draft, and are read in their order.
"""

import msgspec

from events import limits
from events.commands import (
    Contact,
    DeactivateContacts,
    ExpireContacts,
    RegisterContacts,
    RegistrarCommand,
    Registration,
    RemoveContacts,
    RemoveFlow,
)
from events.owners import owner_of
from events.registrations import AorState, Binding, BindingsRecorded, Change, Gone, Kind, Seen, binding_id
from registrar.config import Policy
from sipcore.errors import ParseError
from sipcore.uri import Uri, equal, parse_uri

MEMORY_MS = 32_000
"""How long an answered command and a removed contact are remembered: 64*T1, as long as a copy can live."""
REMEMBERED = 32
"""The most answered commands, and the most removed contacts, that are remembered of one AOR; the oldest go first."""
ONE_HOUR = 3600
SCHEMES = frozenset({"sip", "sips"})
"""Of contacts that can be called; others are only ever removed."""
EVERY_CONTACT = "*"
"""Stands in `Gone.contact` for whatever a `Contact: *` removed."""


class Refusal(msgspec.Struct, frozen=True):
    """The command changes nothing; `status`, `reason` and `headers` are for the phone, `name` for metrics."""

    status: int
    reason: str
    name: str
    headers: tuple[tuple[str, str], ...] = ()


def decide(
    state: AorState, command: RegistrarCommand, at: int, partition: int, offset: int, policy: Policy
) -> BindingsRecorded | Refusal | None:
    """What the command at this offset does; `at` is its timestamp in milliseconds.

    None: it needs neither record nor answer (an expiry with nothing due, a flow or a user without bindings).
    """
    draft = _Draft(state, max(at, state.at))
    if isinstance(command, RegisterContacts):
        return _register(draft, command, partition, offset, policy)
    if isinstance(command, ExpireContacts):
        draft.reap(policy.grace)
        return draft.recorded(command.id, command.aor, "expiry") if draft.ended else None
    if isinstance(command, RemoveFlow):
        return _remove_flow(draft, command)
    if isinstance(command, DeactivateContacts):
        return _deactivate(draft, command)
    return _remove(draft, command)


def evolve(state: AorState, event: BindingsRecorded) -> AorState:
    """The state after the event, which carries it whole."""
    del state
    return event.state


def is_over(state: AorState, at: int) -> bool:
    """Whether nothing of the AOR matters any more: no binding, and nothing that a late copy could meet."""
    return not state.bindings and memory_ends(state) < at


def memory_ends(state: AorState) -> int:
    """Until when, in milliseconds, answered commands and removed contacts matter; 0 when there are none."""
    times = [seen.at for seen in state.seen] + [gone.at for gone in state.gone]
    return max(times) + MEMORY_MS if times else 0


class _Draft:
    """An AOR's bindings while one command works on them."""

    def __init__(self, state: AorState, at: int) -> None:
        self.at = at
        self.before = {binding.id: binding for binding in state.bindings}
        self.bindings = self.before.copy()
        self.ended: dict[int, Kind] = {}
        self.touched: set[int] = set()
        since = at - MEMORY_MS
        self.seen = [seen for seen in state.seen if seen.at >= since]
        self.gone = [gone for gone in state.gone if gone.at >= since]
        self.newly_gone: list[Gone] = []
        self._uris: dict[str, Uri | None] = {}

    def uri(self, text: str) -> Uri | None:
        """The URI parsed, at most once per decision; None when it is not one."""
        try:
            return self._uris[text]
        except KeyError:
            pass
        try:
            uri: Uri | None = parse_uri(text)
        except ParseError:
            uri = None
        self._uris[text] = uri
        return uri

    def same(self, one: str, other: str) -> bool:
        """RFC 3261 section 19.1.4; what cannot be parsed equals only itself."""
        if one == other:
            return True
        left, right = self.uri(one), self.uri(other)
        return left is not None and right is not None and equal(left, right)

    def matching(self, contact: Contact) -> list[Binding]:
        """The bindings that this contact means, the best match first.

        Same +sip.instance and reg-id (or both without) is the same phone, whatever its address now
        (RFC 5626 section 6). Otherwise URIs are compared, equal text before equal meaning, since
        equality is not transitive; but two flows, each with instance and reg-id, are never one.
        """
        flow = contact.instance is not None and contact.reg_id is not None
        if contact.instance is not None:
            for binding in self.bindings.values():
                if binding.instance == contact.instance and binding.reg_id == contact.reg_id:
                    return [binding]
        found = [
            binding
            for binding in self.bindings.values()
            if not (flow and binding.reg_id is not None) and self.same(contact.uri, binding.contact)
        ]
        if len(found) > 1:
            found.sort(key=lambda binding: binding.contact != contact.uri)
        return found

    def put(self, binding: Binding) -> None:
        """Adds a binding, or replaces the one of this id."""
        self.bindings[binding.id] = binding
        self.touched.add(binding.id)

    def end(self, binding: Binding, kind: Kind) -> None:
        """Removes a binding; a late copy of the REGISTER that made it will not bring it back."""
        del self.bindings[binding.id]
        self.ended[binding.id] = kind
        self.forget(binding.contact, binding.call_id, binding.cseq)

    def forget(self, contact: str, call_id: str, cseq: int) -> None:
        """Remembers that requests of this Call-ID up to this CSeq make this contact no more."""
        self.newly_gone.append(Gone(contact, call_id, cseq, self.at))

    def is_gone(self, contact: str, register: Registration) -> bool:
        """Whether an earlier command removed this contact after this one was sent."""
        return any(
            gone.call_id == register.call_id
            and register.cseq <= gone.cseq
            and (gone.contact == EVERY_CONTACT or self.same(contact, gone.contact))
            for gone in self.gone
        )

    def reap(self, grace: int) -> None:
        """Ends what outlived its time and its grace: asked by the timer, or before it, should it be late."""
        limit = self.at - grace * 1000
        for binding in self.before.values():
            if binding.expires <= limit:
                self.end(binding, Kind.EXPIRED)

    def recorded(self, id_: str, aor: str, by: str, command: RegisterContacts | None = None) -> BindingsRecorded:
        """The event that makes the draft the truth."""
        gone = self.gone
        if self.newly_gone:
            # Of one contact and Call-ID the highest CSeq says all.
            latest: dict[tuple[str, str], Gone] = {}
            for each in (*gone, *self.newly_gone):
                key = (each.contact, each.call_id)
                known = latest.pop(key, each)
                latest[key] = Gone(each.contact, each.call_id, max(each.cseq, known.cseq), each.at)
            gone = list(latest.values())
        return BindingsRecorded(
            id=id_,
            aor=aor,
            by=by,
            changes=self.changes() if self.ended or self.touched else (),
            state=AorState(
                at=self.at,
                bindings=tuple(self.bindings.values()),
                seen=tuple(self.seen[-REMEMBERED:]),
                gone=tuple(gone[-REMEMBERED:]),
            ),
            reply=command.reply if command else None,
        )

    def changes(self) -> tuple[Change, ...]:
        """What became of each binding, in the words of RFC 3680 section 4.7."""
        changes = []
        for id_, old in self.before.items():
            if id_ in self.ended:
                changes.append(Change(self.ended[id_], id_, old.contact))
            elif id_ in self.touched:
                new = self.bindings[id_]
                kind = Kind.SHORTENED if new.expires < old.expires else Kind.REFRESHED
                changes.append(Change(kind, id_, new.contact))
        changes += [
            Change(Kind.CREATED, id_, new.contact) for id_, new in self.bindings.items() if id_ not in self.before
        ]
        return tuple(changes)


def _register(
    draft: _Draft, command: RegisterContacts, partition: int, offset: int, policy: Policy
) -> BindingsRecorded | Refusal:
    register = command.register
    refusal = _unfit_aor(command.aor)
    if refusal:
        return refusal
    draft.reap(policy.grace)
    if _is_answered(draft, command) or not (register.contacts or register.star):
        return draft.recorded(command.id, command.aor, command.user, command)
    refusal = _unfit_request(register)
    if refusal:
        return refusal
    if register.star:
        refusal = _remove_all(draft, register)
    else:
        for index, contact in enumerate(register.contacts):
            refusal = _apply(draft, register, contact, binding_id(partition, offset, index), policy)
            if refusal:
                return refusal
        refusal = _make_room(draft, policy)
    if refusal:
        return refusal
    draft.seen.append(Seen(command.id, register.call_id, register.cseq, register.branch, draft.at))
    recorded = draft.recorded(command.id, command.aor, command.user, command)
    left = _left(draft, command.reply.edge)
    return msgspec.structs.replace(recorded, closes=left) if left else recorded


def _left(draft: _Draft, edge: str) -> tuple[str, ...]:
    """First Path values of flows on UDP of other edges by which the phones are reached no more.

    Such an edge pings the flow until it is told; the one that asks has it in its answer. A connection's end tells
    itself.
    """
    moved = [
        old
        for id_, old in draft.before.items()
        if draft.ended.get(id_) is not Kind.EXPIRED
        and ((new := draft.bindings.get(id_)) is None or new.path != old.path)
    ]
    if not moved:
        return ()
    stay = {binding.path[:1] for binding in draft.bindings.values()}
    left = dict.fromkeys(old.path[0] for old in moved if old.path and old.path[:1] not in stay)
    owners = ((path, owner_of(path)) for path in left)
    return tuple(path for path, owner in owners if owner and not owner.boot and owner.edge != edge)


def _is_answered(draft: _Draft, command: RegisterContacts) -> bool:
    """Whether this is a copy of what was answered with 200: of the command, or of the REGISTER by another edge."""
    register = command.register
    return any(
        seen.id == command.id
        or (seen.cseq == register.cseq and seen.branch == register.branch and seen.call_id == register.call_id)
        for seen in draft.seen
    )


def _remove_all(draft: _Draft, register: Registration) -> Refusal | None:
    """Step 6: `Contact: *`."""
    if register.contacts or register.expires != 0:
        return Refusal(400, "Contact * Needs Expires 0 And No Other Contact", "bad-star")
    for binding in draft.bindings.values():
        if binding.call_id == register.call_id and binding.cseq >= register.cseq:
            return _out_of_order()
    for binding in list(draft.bindings.values()):
        draft.end(binding, Kind.UNREGISTERED)
    draft.forget(EVERY_CONTACT, register.call_id, register.cseq)
    return None


def _apply(draft: _Draft, register: Registration, contact: Contact, new_id: int, policy: Policy) -> Refusal | None:
    """Step 7 for one contact; `new_id` is its binding's id if it makes one."""
    requested = contact.expires
    if requested is None:
        requested = register.expires
    if requested is None:
        requested = policy.default_expires
    refusal = _unfit_contact(contact, requested)
    if refusal:
        return refusal
    if 0 < requested < ONE_HOUR and requested < policy.min_expires:
        return Refusal(423, "Interval Too Brief", "too-brief", (("Min-Expires", str(policy.min_expires)),))
    matches = draft.matching(contact)
    if not (matches and matches[0].contact == contact.uri) and draft.uri(contact.uri) is None:
        return Refusal(400, "Bad Contact URI", "bad-contact")
    for binding in matches if requested == 0 else matches[:1]:
        # What this very request did before (the same contact twice) is not held against it.
        if binding.call_id == register.call_id and binding.cseq >= register.cseq and binding.id not in draft.touched:
            return _out_of_order()
    if requested == 0:
        for binding in matches:
            draft.end(binding, Kind.UNREGISTERED)
        draft.forget(contact.uri, register.call_id, register.cseq)
        return None
    if draft.is_gone(contact.uri, register):
        return _out_of_order()
    old = matches[0] if matches else None
    if old and not draft.same(old.contact, contact.uri):
        draft.forget(old.contact, old.call_id, old.cseq)
    since = 0 if contact.instance is None else _gruus_since(draft, register, contact.instance, old)
    draft.put(_bind(draft.at, register, contact, requested, old, new_id, policy, since))
    return None


def _gruus_since(draft: _Draft, register: Registration, instance: str, old: Binding | None) -> int:
    """Since when temporary GRUUs of an instance are good (RFC 5627 sections 5.1 and 5.3): one time for its bindings.

    They last as long as any of these does, and another Call-ID in a refresh ends all that were given before.
    """
    mates = [binding for binding in draft.bindings.values() if binding.instance == instance and binding.gruus_since]
    if not mates:
        return draft.at if register.gruu else 0
    if old is None or old.instance != instance or old.call_id == register.call_id:
        return max(binding.gruus_since for binding in mates)
    for binding in [each for each in mates if each.expires > draft.at]:
        draft.put(msgspec.structs.replace(binding, gruus_since=draft.at))
    return draft.at


def _bind(
    at: int,
    register: Registration,
    contact: Contact,
    requested: int,
    old: Binding | None,
    new_id: int,
    policy: Policy,
    since: int,
) -> Binding:
    """The binding that this contact makes, or that it refreshes."""
    granted = min(requested, policy.max_expires)
    if old:
        # The draw alone ends nothing earlier than it would have ended: that would be told as `shortened`.
        granted = max(grant(requested, new_id, policy), min(granted, -(-(old.expires - at) // 1000)))
    path = register.path if contact.path is None else contact.path
    return Binding(
        id=old.id if old else new_id,
        contact=contact.uri,
        call_id=register.call_id,
        cseq=register.cseq,
        expires=at + granted * 1000,
        granted=granted,
        created=old.created if old else at,
        updated=at,
        params=contact.params,
        q=contact.q,
        instance=contact.instance,
        reg_id=contact.reg_id if contact.instance is not None else None,
        received="" if contact.path == () else register.received,
        path=path,
        socket=register.socket,
        user_agent=register.user_agent[: limits.USER_AGENT],
        methods=register.methods,
        gruus_since=since,
    )


def grant(requested: int, salt: int, policy: Policy) -> int:
    """Seconds granted to a refresh: at most what is requested and what the policy allows, less a draw by `salt`."""
    granted = min(requested, policy.max_expires)
    spread = granted * policy.expires_deviation // 100
    if spread:
        # Knuth's multiplicative hash: neighbours in the log get times far apart.
        granted -= (salt * 2654435761 >> 7 & 0xFFFFFFFF) % (spread + 1)
    return max(granted, min(requested, policy.min_expires))


def _make_room(draft: _Draft, policy: Policy) -> Refusal | None:
    """The limit of bindings per AOR; it counts only against a request that adds one."""
    excess = len(draft.bindings) - policy.max_contacts
    if excess <= 0 or draft.bindings.keys() <= draft.before.keys():
        return None
    others = [binding for binding in draft.bindings.values() if binding.id not in draft.touched]
    if policy.overflow == "refuse" or len(others) < excess:
        return Refusal(403, "Too Many Contacts", "too-many-contacts")
    # A phone that restarts from another port leaves its earlier flow behind: that goes before another phone's.
    latest: dict[tuple[str, str], int] = {}
    for binding in draft.bindings.values():
        sender = binding.call_id, binding.user_agent
        latest[sender] = max(binding.updated, latest.get(sender, 0))

    def in_turn(binding: Binding) -> tuple[bool, int, int]:
        return binding.updated == latest[binding.call_id, binding.user_agent], binding.updated, binding.id

    others.sort(key=in_turn)
    for binding in others[:excess]:
        draft.end(binding, Kind.DEACTIVATED)
    return None


def _remove(draft: _Draft, command: RemoveContacts) -> BindingsRecorded:
    closes: dict[str, None] = {}
    for binding in list(draft.bindings.values()):
        if command.forget or command.contact is None or draft.same(command.contact, binding.contact):
            draft.end(binding, Kind.DEACTIVATED if command.kick else Kind.UNREGISTERED)
            closes.update(dict.fromkeys(binding.path[:1]))
    recorded = draft.recorded(command.id, command.aor, f"operator:{command.operator}")
    if command.kick:
        recorded = msgspec.structs.replace(recorded, closes=tuple(closes))
    if command.forget:
        # Nor what a late copy of a REGISTER would be known by: so the snapshot goes at once.
        return msgspec.structs.replace(recorded, forgotten=True, state=AorState(at=draft.at))
    return recorded


def _remove_flow(draft: _Draft, command: RemoveFlow) -> BindingsRecorded | None:
    """A binding refreshed by another flow since then has another path, and stays."""
    for binding in list(draft.bindings.values()):
        if binding.path[:1] == (command.path,):
            draft.end(binding, Kind.DEACTIVATED)
    return draft.recorded(command.id, command.aor, "flow-lost") if draft.ended else None


def _deactivate(draft: _Draft, command: DeactivateContacts) -> BindingsRecorded | None:
    """A late copy of a REGISTER does not bring them back; a user who comes back sends new ones."""
    for binding in list(draft.bindings.values()):
        draft.end(binding, Kind.DEACTIVATED)
    return draft.recorded(command.id, command.aor, "user-gone") if draft.ended else None


def _out_of_order() -> Refusal:
    return Refusal(500, "CSeq Out Of Order", "cseq-not-higher")


def _unfit_aor(aor: str) -> Refusal | None:
    user, _, domain = aor.rpartition("@")
    if not user or not domain:
        return Refusal(400, "To Names No User", "aor-without-user")
    if len(user) > limits.USERNAME or len(domain) > limits.DOMAIN:
        return _too_long("aor", "To")
    return None


def _unfit_request(register: Registration) -> Refusal | None:
    """Why what all contacts share does not fit the tables."""
    if len(register.contacts) > limits.CONTACTS_PER_REGISTER:
        return Refusal(403, "Too Many Contacts In One REGISTER", "too-many-contacts-in-one")
    if len(register.call_id) > limits.CALL_ID:
        return _too_long("call-id", "Call-ID")
    if len(register.branch) > limits.BRANCH:
        return _too_long("branch", "Via Branch")
    if len(register.received) > limits.RECEIVED:
        return _too_long("received", "Source Address")
    for path in (register.path, *(contact.path for contact in register.contacts if contact.path)):
        if len(path) and sum(map(len, path)) + len(path) - 1 > limits.PATH:
            return _too_long("path", "Path")
    if not 0 <= register.cseq < 2**31:
        return Refusal(400, "Bad CSeq", "bad-cseq")
    if register.methods is not None and not 0 <= register.methods < 2**31:
        return Refusal(400, "Bad Allow", "bad-methods")
    return None


def _unfit_contact(contact: Contact, requested: int) -> Refusal | None:
    """Why one contact is invalid or does not fit the tables."""
    if len(contact.uri) > limits.CONTACT:
        return _too_long("contact", "Contact")
    if len(contact.params) > limits.CONTACT_PARAMS:
        return _too_long("contact-params", "Contact Parameters")
    if contact.instance is not None and len(contact.instance) > limits.INSTANCE:
        return _too_long("instance", "Instance")
    if contact.q is not None and not (0 <= contact.q <= 1 and round(contact.q, 3) == contact.q):
        return Refusal(400, "Bad q", "bad-q")
    if contact.reg_id is not None and not 0 < contact.reg_id < 2**31:
        return Refusal(400, "Bad reg-id", "bad-reg-id")
    if requested < 0:
        return Refusal(400, "Bad Expires", "bad-expires")
    if requested and contact.uri.partition(":")[0].lower() not in SCHEMES:
        return Refusal(400, "Contact Is Not a SIP URI", "contact-not-sip")
    return None


def _too_long(name: str, words: str) -> Refusal:
    return Refusal(400, f"{words} Too Long", f"{name}-too-long")
