"""Properties of any history of commands: what holds whatever phones, operators and the timer do."""

from hypothesis import given, settings
from hypothesis import strategies as st

from events.commands import (
    Contact,
    ExpireContacts,
    RegisterContacts,
    Registration,
    RemoveContacts,
    RemoveFlow,
    ReplyTo,
)
from events.registrations import AorState, BindingsRecorded, Kind
from events.wire import Decoder, encode
from registrar.config import Policy
from registrar.decider import Refusal, decide, evolve, grant
from registrar.truths import decode_state, truth

AOR = "alice@example.test"
URIS = (
    "sip:a@192.0.2.1",
    "sip:a@192.0.2.1;x=1",
    "sip:a@192.0.2.1;x=2",
    "sip:a@192.0.2.1:5060",
    "sip:a@192.0.2.2;transport=tcp",
    "sip:%61@192.0.2.1",
    "tel:+123",
    "<broken>",
)
REPLY = ReplyTo("edge-1", "boot", 2**60)

contacts = st.builds(
    Contact,
    uri=st.sampled_from(URIS),
    expires=st.none() | st.sampled_from([0, 0, 30, 60, 200, 3600, 2**32 - 1]),
    instance=st.none() | st.sampled_from(["<one>", "<two>"]),
    reg_id=st.none() | st.integers(1, 2),
)
registers = st.builds(
    RegisterContacts,
    id=st.integers(0, 30).map(str),
    reply=st.just(REPLY),
    user=st.just(AOR),
    aor=st.just(AOR),
    register=st.builds(
        Registration,
        call_id=st.sampled_from(["a", "b", "c"]),
        cseq=st.integers(0, 10),
        branch=st.sampled_from(["x", "y", "z"]),
        contacts=st.lists(contacts, max_size=4).map(tuple),
        star=st.sampled_from([False] * 5 + [True]),
        expires=st.none() | st.sampled_from([0, 0, 100]),
        path=st.sampled_from([(), ("<sip:one;lr>",), ("<sip:two;lr>", "<sip:one;lr>")]),
    ),
)
removals = st.builds(
    RemoveContacts, id=st.just("r"), aor=st.just(AOR), operator=st.just("o"), contact=st.none() | st.sampled_from(URIS)
)
losses = st.builds(
    RemoveFlow, id=st.just("f"), aor=st.just(AOR), path=st.sampled_from(["<sip:one;lr>", "<sip:two;lr>"])
)
commands = st.one_of(registers, registers, registers, removals, losses, st.just(ExpireContacts("e", AOR)))
histories = st.lists(st.tuples(commands, st.integers(-5_000, 120_000)), max_size=25)
policies = st.builds(
    Policy,
    expires_deviation=st.integers(0, 50),
    max_contacts=st.integers(1, 4),
    overflow=st.sampled_from(["refuse", "replace-oldest"]),
    grace=st.integers(0, 3),
)


def run(history, policy):
    """Every decision with the state before and after it."""
    state, now, steps = AorState(), 10**12, []
    for offset, (command, passed) in enumerate(history):
        now += passed
        decision = decide(state, command, now, 1, offset, policy)
        after = evolve(state, decision) if isinstance(decision, BindingsRecorded) else state
        steps.append((state, command, decision, after))
        state = after
    return steps


@given(histories, policies)
@settings(max_examples=300, deadline=None)
def test_e15_states_follow_from_the_recorded_events_alone_and_bytes_lose_nothing(history, policy):
    replayed = AorState()
    read = Decoder(BindingsRecorded)
    for offset, (_, _, decision, after) in enumerate(run(history, policy)):
        if isinstance(decision, BindingsRecorded):
            state = encode(decision.state)
            record = truth(decision, state, 1, offset, 0)
            assert read(record.value) == decision
            assert record.value == encode(decision)
            assert decode_state(state) == decision.state
            replayed = evolve(replayed, read(record.value))
        assert replayed == after


@given(histories, policies)
@settings(max_examples=150, deadline=None)
def test_the_same_inputs_give_the_same_decisions(history, policy):
    assert run(history, policy) == run(history, policy)


@given(histories, policies)
@settings(max_examples=300, deadline=None)
def test_changes_are_exactly_the_difference_of_the_sets(history, policy):
    ids_ever = set()
    for before, command, decision, after in run(history, policy):
        old, new = {b.id: b for b in before.bindings}, {b.id: b for b in after.bindings}
        if not isinstance(decision, BindingsRecorded):
            assert before == after
            continue
        created = {c.id for c in decision.changes if c.kind is Kind.CREATED}
        kept = {c.id for c in decision.changes if c.kind in (Kind.REFRESHED, Kind.SHORTENED)}
        ended = {c.id for c in decision.changes} - created - kept
        assert created == new.keys() - old.keys()
        assert ended == old.keys() - new.keys()
        assert all(old[i] == new[i] for i in old.keys() & new.keys() - kept)
        assert not created & ids_ever
        assert len(decision.changes) == len({c.id for c in decision.changes})
        ids_ever |= created
        if created:
            assert len(new) <= policy.max_contacts
        assert after.at >= before.at
        if isinstance(command, RegisterContacts | ExpireContacts):
            assert all(b.expires + policy.grace * 1000 > after.at for b in after.bindings)
        expired = {c.id for c in decision.changes if c.kind is Kind.EXPIRED}
        assert all(old[i].expires + policy.grace * 1000 <= after.at for i in expired)


@given(histories, policies)
@settings(max_examples=200, deadline=None)
def test_r27_refusals_are_4xx_or_5xx_and_named(history, policy):
    for _, _, decision, _ in run(history, policy):
        if isinstance(decision, Refusal):
            assert decision.status in (400, 403, 423, 500)
            assert decision.name
            assert (decision.status == 423) == any(name == "Min-Expires" for name, _ in decision.headers)


@given(
    requested=st.integers(1, 2**32 - 1),
    salt=st.integers(0, 2**63 - 1),
    minimum=st.integers(1, 10_000),
    more=st.integers(0, 10_000),
    deviation=st.integers(0, 50),
)
def test_r13_granted_is_never_more_than_requested(requested, salt, minimum, more, deviation):
    policy = Policy(minimum, minimum + more, minimum, deviation)
    granted = grant(requested, salt, policy)
    assert 0 < granted <= min(requested, policy.max_expires)
    assert granted >= min(requested, policy.min_expires)


@given(st.permutations(range(6)), st.lists(st.sampled_from([0, 60, 300]), min_size=6, max_size=6), st.data())
def test_r26_whatever_the_order_of_arrival_the_highest_cseq_of_a_call_id_decides(order, times, data):
    others = data.draw(st.lists(st.sampled_from(order), max_size=3))
    state = AorState()
    for offset, cseq in enumerate([*order, *others]):
        contact = Contact(URIS[0], expires=times[cseq])
        command = RegisterContacts(str(offset), REPLY, AOR, AOR, Registration("a", cseq, f"branch-{cseq}", (contact,)))
        decision = decide(state, command, 10**12 + offset, 0, offset, Policy(expires_deviation=0))
        if isinstance(decision, BindingsRecorded):
            state = evolve(state, decision)
    assert [(b.cseq, b.granted) for b in state.bindings] == ([(5, times[5])] if times[5] else [])
