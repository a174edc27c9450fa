"""HA1s at rest: sealed for one user, realm and algorithm, by a key with a name (A26)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.users.sealing import Keyring, Keys, Unopened
from runtime.errors import ConfigError

OLD, NEW = "e1:" + "11" * 32, "e2:" + "22" * 32
HA1 = "0123456789abcdef" * 2
FOR = ("alice", "example.test", "MD5")
NONCE = b"123456789012"


def test_a26_what_is_sealed_opens_for_its_user_realm_and_algorithm_alone() -> None:
    ring = Keyring.parsed(OLD)
    sealed = ring.seal(HA1, *FOR, NONCE)
    assert HA1 not in sealed
    assert ring.open("e1", sealed, *FOR) == HA1
    for other in (("bob", *FOR[1:]), ("alice", "other.test", "MD5"), (*FOR[:2], "SHA-256")):
        with pytest.raises(Unopened):
            ring.open("e1", sealed, *other)


@given(st.integers(0, 79), st.integers(1, 63))
def test_a26_what_was_changed_does_not_open(place: int, change: int) -> None:
    ring = Keyring.parsed(OLD)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    sealed = list(ring.seal(HA1 * 2, *FOR, NONCE))
    sealed[place] = letters[(letters.index(sealed[place]) + change) % 64]
    with pytest.raises(Unopened):
        ring.open("e1", "".join(sealed), *FOR)


@pytest.mark.parametrize("rubbish", ["", "x", "AAAA", "=" * 80, "ü", HA1])
def test_a26_rubbish_does_not_open(rubbish: str) -> None:
    with pytest.raises(Unopened):
        Keyring.parsed(OLD).open("e1", rubbish, *FOR)


def test_the_first_key_seals_and_all_open() -> None:
    sealed = Keyring.parsed(OLD).seal(HA1, *FOR, NONCE)
    both = Keyring.parsed(f"{NEW}\n{OLD}\n")
    assert both.sealing == "e2"
    assert both.open("e1", sealed, *FOR) == HA1
    with pytest.raises(Unopened, match="e1 is missing"):
        Keyring.parsed(NEW).open("e1", sealed, *FOR)
    assert Keyring.parsed(both.text()) == both


BROKEN = ["e1", "e1:1234", f"e1:{'zz' * 32}", f":{'11' * 32}", f"a-b:{'11' * 32}", f"{OLD},{OLD}"]


@pytest.mark.parametrize("text", BROKEN)
def test_a25_keys_that_are_none_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="RAMAL_ENROLMENT_KEYS") as caught:
        Keyring.parsed(text)
    assert "11" * 16 not in str(caught.value)
    assert "11" * 8 not in repr(Keyring.parsed(OLD))


def test_a_missing_key_is_looked_for_again_but_not_all_the_time() -> None:
    now, text, reads = [0.0], [OLD], [0]

    def read() -> str:
        reads[0] += 1
        return text[0]

    keys = Keys(read, lambda: now[0])
    assert not keys.knows("e2")
    text[0] = f"{NEW},{OLD}"
    assert not keys.knows("e2")
    assert reads == [2]
    now[0] = 1.5
    assert keys.knows("e2")
    text[0] = "broken"
    now[0] = 3.0
    assert not keys.knows("e3")
    assert keys.knows("e1")
