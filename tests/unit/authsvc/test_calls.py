"""authsvc's decider and what is no REGISTER: calls and their first edge, who is called, closed connections."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.decider import Accept, Facts, Needs, Owner, Refuse, State, Unknown, decide, evolve
from authsvc.memory.lockouts import Lockouts
from authsvc.memory.nonces import Replays
from authsvc.memory.requests import MILLISECONDS, Requests
from authsvc.users.ha1 import from_password
from events.commands import (
    Authenticate,
    RequestId,
)
from tests.kit.invites import ALICE, AT, REALM, RULES, invite

# --- the decider ----------------------------------------------------------------


def state() -> State:
    return State(Replays(300, 1000), Lockouts(3, 60))


def step(of: State, asked: Authenticate, owner: Owner | Unknown = Unknown.UNASKED, at: int = AT) -> Any:
    name = asked.digest.username
    known = Facts(from_password(name, asked.digest.realm, f"secret-{name}"), owner)
    decision = decide(RULES, of, asked, known, at)
    if not isinstance(decision, Needs):
        evolve(of, asked, decision, at)
    return decision


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "SUBSCRIBE", "REFER", "PUBLISH", "X-UNKNOWN"])
def test_a28_a_caller_is_let_in_as_himself_and_as_nobody_and_answered_with_his_aor(method: str) -> None:
    assert step(state(), invite(method=method)) == Accept(ALICE, ALICE, copy=False)
    assert step(state(), invite(method=method, aor="")) == Accept(ALICE, ALICE, copy=False)


def test_a28_the_from_of_a_caller_is_his_own_or_an_alias_of_his() -> None:
    desk = invite(aor=f"desk@{REALM}")
    assert step(state(), desk) is Needs.OWNER
    assert step(state(), desk, Owner(ALICE, exists=True)) == Accept(ALICE, ALICE, copy=False)
    assert step(state(), desk, Owner(f"bob@{REALM}", exists=True)).status == 403
    assert step(state(), desk, Unknown.AWAY).status == 503


def test_a28_who_calls_as_nobody_or_from_elsewhere_hears_403_since_404_would_be_of_the_callee() -> None:
    refused = step(state(), invite(aor=f"nobody@{REALM}"), Owner(None, exists=False))
    assert refused == Refuse(403, failure="not this user's AOR", used=True)
    assert step(state(), invite(aor="alice@elsewhere.test")).status == 403


def test_a28_a_wrong_response_of_a_caller_is_401_also_in_thesis_mode_and_locks_out() -> None:
    of = state()
    assert [step(of, invite(password="wrong", nc=n)).status for n in range(1, 5)] == [401, 401, 401, 403]
    unknown = invite("nobody", realm="thesis.test")
    assert decide(RULES, state(), unknown, Facts(None), AT) == Refuse(401, failure="unknown user", counts=True)


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        (f"alice@{REALM}", "user name with domain"),
        ("alice@elsewhere.test", "unknown user"),
        (f"@{REALM}", "user name with domain"),
    ],
)
def test_a17_who_logs_in_with_the_domain_in_his_name_hears_401_and_operators_why(name: str, failure: str) -> None:
    """Kamailio and OpenSIPS know such names by their column `ha1b`; an HA1 that is stored is of the name alone."""
    assert decide(RULES, state(), invite(name), Facts(None), AT) == Refuse(401, failure=failure, counts=True)


def test_a09_the_digest_of_a_call_serves_no_other_call_and_no_other_callee() -> None:
    of = state()
    step(of, invite())
    other = invite(request=RequestId("call-2", 1, "z9hG4bK2"))
    assert step(of, other) == Refuse(401, stale=True)
    assert step(of, invite(uri="sip:gateway@example.test")) == Refuse(401, stale=True)
    assert step(of, invite(aor="")) == Refuse(401, stale=True)


def test_y36_a_copy_by_another_edge_or_another_life_of_it_is_told_the_first() -> None:
    of = state()
    assert step(of, invite()) == Accept(ALICE, ALICE, copy=False)
    assert step(of, invite()) == Accept(ALICE, ALICE, copy=True)
    first = ("edge-1", "boot-1")
    assert step(of, invite(edge="edge-2")) == Accept(ALICE, ALICE, copy=True, first=first)
    assert step(of, invite(edge="edge-3")).first == first
    assert step(of, invite(boot="boot-2")).first == first


def test_y36_a_copy_with_credentials_of_its_own_is_told_the_first_too() -> None:
    of = state()
    step(of, invite())
    assert step(of, invite(edge="edge-2", nc=2)).first == ("edge-1", "boot-1")


def test_y36_a_request_that_was_refused_has_no_first_edge() -> None:
    of = state()
    step(of, invite(password="wrong"))
    assert step(of, invite(edge="edge-2")).first is None


@pytest.mark.parametrize(
    "other",
    [
        invite(edge="edge-2", nc=2, request=RequestId("call-2", 1, "z9hG4bK1")),
        invite(edge="edge-2", nc=2, request=RequestId("call-1", 2, "z9hG4bK1")),
        invite(edge="edge-2", nc=2, request=RequestId("call-1", 1, "z9hG4bK2")),
        invite("bob", edge="edge-2"),
    ],
    ids=["Call-ID", "CSeq", "branch", "user"],
)
def test_y36_another_request_is_no_copy(other: Authenticate) -> None:
    of = state()
    step(of, invite())
    assert step(of, other) == Accept(other.aor, other.aor, copy=False)


def test_y36_the_first_edge_is_remembered_for_32_seconds() -> None:
    requests, asked = Requests(), RequestId("c", 1, "b")
    requests.enter("u", asked, ("edge-1", "a"), AT)
    requests.enter("u", asked, ("edge-2", "b"), AT + 1)
    assert requests.first("u", asked, ("edge-2", "b"), AT + MILLISECONDS - 1) == ("edge-1", "a")
    assert requests.first("u", asked, ("edge-2", "b"), AT + MILLISECONDS) is None
    requests.enter("u", asked, ("edge-2", "b"), AT + MILLISECONDS)
    assert requests.first("u", asked, ("edge-1", "a"), AT + MILLISECONDS) == ("edge-2", "b")


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10_000)), max_size=60))
def test_first_edges_are_bounded(asked: list[tuple[int, int]]) -> None:
    requests, at = Requests(capacity=5), AT
    for number, passed in asked:
        at += passed
        requests.enter("u", RequestId("c", number, "b"), ("edge", "boot"), at)
        assert requests.first("u", RequestId("c", number, "b"), ("other", "boot"), at) == ("edge", "boot")
        assert len(requests) <= 5
