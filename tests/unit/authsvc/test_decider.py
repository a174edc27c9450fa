"""authsvc.decider: who is let in, who is not, and with which words.

Over 400 lines: the checklist of authentication by its numbers.
"""

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.decider import (
    Accept,
    Decision,
    Facts,
    Needs,
    Owner,
    Refuse,
    Rules,
    State,
    Unknown,
    decide,
    evolve,
    give_up,
    named_by,
    own_aor,
)
from authsvc.memory.lockouts import Lockouts
from authsvc.memory.nonces import Replays
from authsvc.users.ha1 import ALGORITHMS, User, from_ha1s, from_password
from events.commands import Authenticate, Contact, Digest, Registration, ReplyTo
from runtime.config import Domain
from sipcore import digest, nonce

NOW = 1_800_000_000
AT = NOW * 1000
KEYS = {"k1": b"0123456789abcdef"}
PASSWORD = "opensesame"
ALL = Domain(algorithms=("SHA-256", "SHA-512-256", "MD5"))
RULES = Rules(
    {
        "example.test": Domain(),
        "sha.test": ALL,
        "thesis.test": Domain(thesis_mode=True),
    },
    KEYS,
    300,
)


def state(floor: int = -1, failures: int = 3) -> State:
    return State(Replays(300, 1000, floor), Lockouts(failures, 60))


def command(
    user: str = "alice",
    realm: str = "example.test",
    password: str = PASSWORD,
    *,
    algorithm: str = "MD5",
    made: int = NOW,
    salt: bytes = b"salt",
    nc: int | None = 1,
    cseq: int = 1,
    branch: str = "z9hG4bK1",
    aor: str | None = None,
    contact: str = "sip:alice@192.0.2.4",
    source: str = "192.0.2.4",
    challenged: str | None = None,
    **changed: Any,
) -> Authenticate:
    """A REGISTER with the response that this password makes."""
    value = nonce.make(KEYS, realm, made, salt, challenged or source)
    uri = f"sip:{realm}"
    qop, cnonce = (None, None) if nc is None else ("auth", "0a4f113b")
    response = digest.expected_response(
        algorithm, digest.ha1(algorithm, user, realm, password), "REGISTER", uri, value, qop, nc, cnonce
    )
    credentials = Digest(user, realm, value, uri, response, algorithm, qop, nc, cnonce)
    return Authenticate(
        "id-1",
        ReplyTo("edge-1", "boot-1", AT + 2000),
        msgspec.structs.replace(credentials, **changed),
        "REGISTER",
        source,
        aor or f"{user}@{realm}",
        Registration("call-1", cseq, branch, (Contact(contact),)),
    )


def user(name: str = "alice", realm: str = "example.test", algorithms: tuple[str, ...] = ALGORITHMS) -> User:
    return from_password(name, realm, PASSWORD, algorithms)


def step(at_state: State, asked: Authenticate, known: Facts, at: int = AT) -> Decision:
    """Decides and remembers."""
    decision = decide(RULES, at_state, asked, known, at)
    if not isinstance(decision, Needs):
        evolve(at_state, asked, decision, at)
    return decision


ALICE = Facts(user())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("nc", [1, None])
def test_a06_a_right_response_is_accepted_with_every_algorithm_with_and_without_qop(
    algorithm: str, nc: int | None
) -> None:
    asked = command(realm="sha.test", algorithm=algorithm, nc=nc)
    assert step(state(), asked, Facts(user(realm="sha.test"))) == Accept("alice@sha.test", "alice@sha.test", copy=False)


def test_a06_the_known_answer_of_rfc_2617_is_computed_from_its_ha1() -> None:
    ha1 = hashlib.md5(b"Mufasa:testrealm@host.com:Circle Of Life").hexdigest()
    expected = digest.expected_response(
        "MD5", ha1, "GET", "/dir/index.html", "dcd98b7102dd2f0e8b11d0f600bfb0c093", "auth", 1, "0a4f113b"
    )
    assert expected == "6629fae49393a05397450978507c4ef1"


def test_a02_a_realm_that_is_no_served_domain_is_challenged_again_and_counts_as_nothing() -> None:
    at_state = state()
    assert step(at_state, command(realm="elsewhere.test"), Facts(Unknown.UNASKED)) == Refuse(401)
    assert len(at_state.lockouts) == 0


def test_a04_an_algorithm_that_the_domain_does_not_allow_is_answered_with_those_it_does() -> None:
    assert step(state(), command(algorithm="SHA-256"), ALICE) == Refuse(401, algorithms=("MD5",))


def test_a04_a_user_who_lacks_the_algorithm_is_challenged_again_with_those_they_have() -> None:
    at_state = state()
    asked = command(realm="sha.test", algorithm="SHA-256")
    has = user(realm="sha.test", algorithms=("SHA-512-256", "MD5"))
    assert step(at_state, asked, Facts(has)) == Refuse(401, algorithms=("SHA-512-256", "MD5"))
    assert len(at_state.lockouts) == 0


@pytest.mark.parametrize(("algorithm", "length"), [("MD5", 31), ("MD5", 64), ("SHA-256", 32), ("SHA-512-256", 63)])
def test_a05_a_response_of_another_length_fails_without_a_calculation(
    algorithm: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "expected_response", None)
    asked = _with_response(algorithm, "0" * length)
    decision = step(state(), asked, Facts(user(realm="sha.test")))
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.counts) == (401, True)


def _with_response(algorithm: str, response: str) -> Authenticate:
    value = nonce.make(KEYS, "sha.test", NOW, b"salt", "192.0.2.4")
    credentials = Digest("alice", "sha.test", value, "sip:sha.test", response, algorithm, "auth", 1, "c")
    reply = ReplyTo("edge-1", "boot-1", AT + 2000)
    register = Registration("call-1", 1, "z9hG4bK1")
    return Authenticate("id-1", reply, credentials, "REGISTER", "192.0.2.4", "alice@sha.test", register)


@pytest.mark.parametrize("changed", [{"cnonce": None}, {"nc": None}, {"qop": "auth-int"}])
def test_qop_nc_and_cnonce_come_together_or_the_response_is_wrong(changed: dict[str, Any]) -> None:
    decision = step(state(), command(**changed) if "nc" not in changed else _without_nc(), ALICE)
    assert isinstance(decision, Refuse)
    assert decision.failure == "wrong response"


def _without_nc() -> Authenticate:
    asked = command()
    return msgspec.structs.replace(asked, digest=msgspec.structs.replace(asked.digest, nc=None))


def test_a07_a_nonce_of_an_older_key_still_verifies_and_one_of_another_realm_does_not() -> None:
    old = {"k0": b"fedcba9876543210"}
    rules = Rules(RULES.domains, {**KEYS, **old}, 300)
    value = nonce.make(old, "example.test", NOW, b"salt", "192.0.2.4")
    ha1 = digest.ha1("MD5", "alice", "example.test", PASSWORD)
    response = digest.expected_response("MD5", ha1, "REGISTER", "sip:example.test", value, "auth", 1, "0a4f113b")
    asked = command(nonce=value, response=response)
    assert isinstance(decide(rules, state(), asked, ALICE, AT), Accept)
    foreign = command(nonce=nonce.make(KEYS, "other.test", NOW, b"salt", "192.0.2.4"))
    assert decide(rules, state(), foreign, ALICE, AT) == Refuse(401)


def test_a08_an_old_nonce_with_the_right_response_is_stale_and_with_a_wrong_one_is_not() -> None:
    at_state = state()
    assert step(at_state, command(made=NOW - 300), ALICE) == Refuse(401, stale=True)
    assert len(at_state.lockouts) == 0
    decision = step(at_state, command(made=NOW - 300, password="guess"), ALICE)
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.stale, decision.counts) == (401, False, True)


def test_a09_the_same_nonce_and_nc_on_another_request_is_stale_and_no_failure() -> None:
    at_state = state()
    assert isinstance(step(at_state, command(cseq=1), ALICE), Accept)
    assert step(at_state, command(cseq=2, branch="z9hG4bK2"), ALICE) == Refuse(401, stale=True)
    assert len(at_state.lockouts) == 0


def test_a09_the_same_request_again_is_answered_as_the_first_was() -> None:
    at_state = state()
    step(at_state, command(), ALICE)
    assert step(at_state, command(), ALICE, AT + 500) == Accept("alice@example.test", "alice@example.test", copy=True)


@pytest.mark.parametrize("changed", [{"aor": "bob@example.test"}, {"contact": "sip:mallory@203.0.113.9"}])
def test_a09_a_sniffed_authorization_with_another_to_or_contact_binds_nothing(changed: dict[str, str]) -> None:
    at_state = state()
    step(at_state, command(), ALICE)
    assert step(at_state, command(**changed), ALICE) == Refuse(401, stale=True)  # type: ignore[arg-type]  # two of its text arguments


def test_a09_a_copy_that_comes_after_every_retransmission_is_stale() -> None:
    at_state = state()
    step(at_state, command(), ALICE)
    assert step(at_state, command(), ALICE, AT + 30_000) == Refuse(401, stale=True)


def test_a09_nc_may_come_out_of_order_and_never_twice() -> None:
    at_state = state()
    for cseq, nc in enumerate([5, 3, 70, 7], 1):
        assert isinstance(step(at_state, command(nc=nc, cseq=cseq), ALICE), Accept)
    for cseq, nc in enumerate([5, 3, 70, 7, 6], 10):
        assert step(at_state, command(nc=nc, cseq=cseq), ALICE) == Refuse(401, stale=True)


def test_a09_without_qop_a_nonce_serves_once() -> None:
    at_state = state()
    assert isinstance(step(at_state, command(nc=None), ALICE), Accept)
    assert step(at_state, command(nc=None, cseq=2), ALICE) == Refuse(401, stale=True)
    assert step(at_state, command(nc=1, cseq=3), ALICE) == Refuse(401, stale=True)


def test_a09_nonces_that_the_partitions_last_owner_may_have_seen_are_stale() -> None:
    at_state = state(floor=NOW)
    assert step(at_state, command(made=NOW), ALICE) == Refuse(401, stale=True)
    assert isinstance(step(at_state, command(made=NOW + 1), ALICE), Accept)


def test_a10_the_hash_uses_the_uri_given() -> None:
    asked = command()
    value = asked.digest.nonce
    ha1 = digest.ha1("MD5", "alice", "example.test", PASSWORD)
    other = "sip:example.test;transport=udp"
    response = digest.expected_response("MD5", ha1, "REGISTER", other, value, "auth", 1, "0a4f113b")
    assert isinstance(step(state(), command(uri=other, response=response), ALICE), Accept)


def test_a17_an_unknown_user_and_a_wrong_password_get_the_same_reply_and_cost_the_same_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[Any, ...]] = []
    real = digest.expected_response

    def counted(*given_: Any) -> str:
        calls.append(given_)
        return real(*given_)

    unknown, wrong = command(password="guess"), command(password="guess")
    monkeypatch.setattr(digest, "expected_response", counted)
    one, other = step(state(), unknown, Facts(None)), step(state(), wrong, ALICE)
    assert isinstance(one, Refuse)
    assert isinstance(other, Refuse)
    assert (one.status, one.stale, one.algorithms, one.counts) == (401, False, (), True)
    assert (other.status, other.stale, other.algorithms, other.counts) == (401, False, (), True)
    assert [len(call[1]) for call in calls] == [32, 32]


def test_a17_thesis_mode_tells_an_unknown_user_from_a_wrong_password() -> None:
    asked = command(realm="thesis.test", password="guess")
    unknown, wrong = step(state(), asked, Facts(None)), step(state(), asked, Facts(user(realm="thesis.test")))
    assert isinstance(unknown, Refuse)
    assert isinstance(wrong, Refuse)
    assert (unknown.status, wrong.status) == (404, 401)


def test_a17_the_stand_in_for_nobody_opens_nothing() -> None:
    """Whoever knows the dummy HA1 of unknown users is still not let in."""
    asked = command()
    forged = digest.expected_response(
        "MD5", "0" * 32, "REGISTER", asked.digest.uri, asked.digest.nonce, "auth", 1, asked.digest.cnonce
    )
    for known in (None, User()):
        decision = step(state(), command(response=forged), Facts(known))
        assert isinstance(decision, Refuse)
        assert decision.status == 401


def test_a18_when_a_source_is_away_the_answer_is_503_with_retry_after_and_in_thesis_mode_500() -> None:
    assert step(state(), command(), Facts(Unknown.AWAY)) == Refuse(503, retry_after=5)
    assert step(state(), command(realm="thesis.test"), Facts(Unknown.AWAY)) == Refuse(500)
    assert give_up(RULES, "example.test") == Refuse(503, retry_after=5)
    assert give_up(RULES, "thesis.test") == Refuse(500)


def test_a27_an_aor_of_somebody_else_is_refused_with_403_and_its_nonce_has_served() -> None:
    """Also R04."""
    at_state = state()
    asked = command(aor="bob@example.test")
    assert decide(RULES, at_state, asked, ALICE, AT) is Needs.OWNER
    known = Facts(ALICE.user, Owner(None, exists=True))
    decision = step(at_state, asked, known)
    assert decision == Refuse(403, failure="not this user's AOR", used=True)
    assert step(at_state, asked, known) == Refuse(403, failure="not this user's AOR")
    assert step(at_state, command(cseq=2), ALICE) == Refuse(401, stale=True)
    assert len(at_state.lockouts) == 0


def test_r07_an_aor_that_nobody_has_is_404_after_authentication_only() -> None:
    asked = command(aor="nobody@example.test")
    assert step(state(), asked, Facts(ALICE.user, Owner(None, exists=False))) == Refuse(404, used=True)
    wrong = command(aor="nobody@example.test", password="guess")
    decision = step(state(), wrong, Facts(ALICE.user, Owner(None, exists=False)))
    assert isinstance(decision, Refuse)
    assert decision.status == 401


def test_r07_an_aor_of_a_domain_that_is_not_served_is_403() -> None:
    decision = step(state(), command(aor="alice@elsewhere.test"), ALICE)
    assert decision == Refuse(403, failure="not this user's AOR", used=True)


def test_a27_an_alias_of_the_user_registers_at_the_users_main_aor() -> None:
    asked = command(aor="reception@example.test")
    known = Facts(ALICE.user, Owner("alice@example.test", exists=True))
    assert step(state(), asked, known) == Accept("alice@example.test", "alice@example.test", copy=False)
    others = Facts(ALICE.user, Owner("bob@example.test", exists=True))
    assert step(state(), asked, others) == Refuse(403, failure="not this user's AOR", used=True)


def test_a27_an_owner_that_cannot_be_looked_up_is_503_and_the_nonce_still_serves() -> None:
    at_state = state()
    asked = command(aor="reception@example.test")
    assert step(at_state, asked, Facts(ALICE.user, Unknown.AWAY)) == Refuse(503, retry_after=5)
    assert isinstance(step(at_state, asked, Facts(ALICE.user, Owner("alice@example.test", exists=True))), Accept)


def test_a27_aors_are_case_sensitive_and_compared_in_canonical_escapes() -> None:
    assert decide(RULES, state(), command(aor="Alice@example.test"), ALICE, AT) is Needs.OWNER
    spaced = "alice smith"
    asked = command(spaced, aor="alice%20smith@example.test")
    assert isinstance(step(state(), asked, Facts(user(spaced))), Accept)
    assert own_aor("+5511", "example.test") == "+5511@example.test"
    assert named_by("alice%20smith@example.test") == ("alice smith", "example.test")


@given(st.text(min_size=1, max_size=20))
def test_a27_a_users_own_aor_names_that_user_and_no_other(name: str) -> None:
    assert named_by(own_aor(name, "example.test")) == (name, "example.test")


def test_s03_wrong_responses_from_a_forged_source_shut_nobody_out() -> None:
    """The attacker has a nonce of his own, but not one that was sent to the victim's address."""
    at_state = state()
    for number in range(30):
        refused = step(at_state, command(password="wrong", salt=b"%04d" % number, challenged="203.0.113.9"), ALICE)
        assert isinstance(refused, Refuse)
        assert refused.status == 401
    assert isinstance(step(at_state, command(), ALICE), Accept)


def test_a30_too_many_failures_shut_out_that_user_at_that_source_only() -> None:
    at_state = state(failures=3)
    wrong = command(password="guess")
    for _ in range(3):
        decision = step(at_state, wrong, ALICE)
        assert isinstance(decision, Refuse)
        assert decision.status == 401
    assert step(at_state, command(), ALICE, AT + 1) == Refuse(403, retry_after=60, failure="locked out")
    assert isinstance(step(at_state, command(source="192.0.2.5"), ALICE), Accept)
    assert isinstance(step(at_state, command("bob"), Facts(user("bob"))), Accept)
    assert isinstance(step(at_state, command(made=NOW + 60, cseq=9), ALICE, AT + 60_001), Accept)


def test_a30_one_who_is_shut_out_is_refused_before_anybody_is_asked_about_them() -> None:
    at_state = state(failures=1)
    step(at_state, command(password="guess"), ALICE)
    assert step(at_state, command(), Facts(Unknown.UNASKED)) == Refuse(403, retry_after=60, failure="locked out")


def test_a30_a_success_forgets_the_failures_before_it() -> None:
    at_state = state(failures=2)
    step(at_state, command(password="guess"), ALICE)
    step(at_state, command(), ALICE)
    step(at_state, command(password="guess", nc=2), ALICE)
    assert isinstance(step(at_state, command(nc=3), ALICE), Accept)


def test_a25_nothing_that_holds_a_secret_shows_it() -> None:
    shown = f"{user()!r} {ALICE!r} {RULES!r} {from_ha1s({'MD5': 'a' * 32})!r}"
    for secret in (user().md5, user().sha256, "a" * 32, "0123456789abcdef"):
        assert str(secret) not in shown


def test_a26_the_comparison_is_the_constant_time_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def same(a: str, b: str) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(digest, "same", same)
    step(state(), command(), ALICE)
    assert len(compared) == 1
