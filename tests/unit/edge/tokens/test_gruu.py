"""GRUUs: who can make and read them, and what they tell (RFC 5627 sections 5.1 and 5.4; CHECKLIST R37, N15)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.tokens.gruu import PREFIX, SALT, Gruu, Gruus, can_have
from sipcore.uri import Uri, equal, parse_uri

AOR = "alice@example.test"
INSTANCE = "<urn:uuid:F81D4FAE-7dec-11d0-a765-00a0c91e6bf6>"
NAME = INSTANCE[1:-1].lower()
OLD, NEW = {"k1": bytes(32)}, {"k2": bytes(range(32)), "k1": bytes(32)}
AT = 1_700_000_000_123
GRUUS = Gruus(OLD)
salts = st.binary(min_size=SALT, max_size=SALT)


def temporary(salt: bytes = bytes(SALT), aor: str = AOR, instance: str = INSTANCE) -> str:
    return GRUUS.temporary(aor, instance, AT, salt)


def test_r37_a_public_gruu_is_the_aor_with_gr_and_the_same_each_time() -> None:
    text = GRUUS.public(AOR, INSTANCE)
    assert text.startswith(f"sip:{AOR};gr=urn:uuid:F81D4FAE-7dec-11d0-a765-00a0c91e6bf6.")
    assert GRUUS.public(AOR, INSTANCE) == text
    assert equal(parse_uri(text), parse_uri(f"sip:{AOR}"))
    assert GRUUS.read(parse_uri(text), "example.test") == Gruu(AOR, NAME)
    assert GRUUS.read(parse_uri(text.replace("F81D", "f81d")), "example.test") == Gruu(AOR, NAME)
    # What its holder may add (section 4.2) and the scheme of who calls change nothing.
    assert GRUUS.read(parse_uri(f"sips:{text[4:]};method=INVITE"), "example.test") == Gruu(AOR, NAME)


@pytest.mark.parametrize("change", ["user", "domain", "instance", "mac", "no mac", "empty", "non-ascii"])
def test_n15_a_public_gruu_of_anybody_elses_making_is_none(change: str) -> None:
    text, domain = GRUUS.public(AOR, INSTANCE), "example.test"
    if change == "domain":
        assert GRUUS.read(parse_uri(text), "other.test") is None
        return
    text = {
        "user": text.replace("alice", "bob"),
        "instance": text.replace("F81D", "F81E"),
        "mac": text[:-1] + ("a" if text[-1] != "a" else "b"),
        "no mac": text.rpartition(".")[0],
        "empty": f"sip:{AOR};gr=",
        "non-ascii": f"sip:{AOR};gr=urn%C3%A9.%C3%A9",
    }[change]
    try:
        uri = parse_uri(text)
    except ValueError:
        return  # no URI at all
    assert GRUUS.read(uri, domain) is None


def test_r37_a_temporary_gruu_hides_whose_it_is_and_no_two_are_alike() -> None:
    found = [temporary(bytes([number] * SALT)) for number in range(200)]
    assert len(set(found)) == 200
    for text in found:
        assert re.fullmatch(rf"sip:{re.escape(PREFIX)}[a-z2-7]+@example\.test;gr", text)
        assert GRUUS.read(parse_uri(text), "example.test") == Gruu(AOR, NAME, AT)
    # Of one phone and of two, as many characters are the same: none but by chance, and those of the key's id.
    other = temporary(bytes(SALT), "alicf@example.test")
    assert len(other) == len(found[0])
    id_ = len("sip:tgruu.") + 5
    for one, two in ((found[0], found[1]), (found[0], other)):
        same = sum(a == b for a, b in zip(one[id_:], two[id_:], strict=True)) - len("@example.test;gr")
        assert same < 25
    assert "alice" not in found[0]


@given(salts, st.integers(min_value=0), st.integers(min_value=1, max_value=31))
def test_n15_a_temporary_gruu_that_was_changed_is_none(salt: bytes, place: int, by: int) -> None:
    uri = parse_uri(temporary(salt))
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    user = uri.user or ""
    place = len(PREFIX) + place % (len(user) - len(PREFIX))
    other = alphabet[(alphabet.index(user[place]) + by) % 32]
    changed = Uri("sip", user[:place] + other + user[place + 1 :], None, uri.host, None, uri.params)
    assert GRUUS.read(changed, "example.test") is None


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz234567%.A-", max_size=200))
def test_n15_what_anybody_makes_up_is_none(text: str) -> None:
    uri = Uri("sip", PREFIX + text, None, "example.test", None, (("gr", None),))
    assert GRUUS.read(uri, "example.test") is None
    assert GRUUS.read(Uri("sip", text or None, None, "example.test", None, (("gr", text),)), "example.test") is None


def test_n15_a_temporary_gruu_is_of_its_domain_and_of_gr_and_has_no_case() -> None:
    uri = parse_uri(temporary())
    assert GRUUS.read(uri, "other.test") is None
    assert GRUUS.read(Uri("sip", uri.user, None, uri.host), "example.test") is None
    upper = Uri("sip", (uri.user or "").upper(), None, uri.host, None, (("GR", None),))
    assert GRUUS.read(upper, "example.test") == Gruu(AOR, NAME, AT)


def test_r37_after_a_rotation_old_gruus_are_good_and_after_the_old_key_has_gone_they_are_not() -> None:
    rotated, later = Gruus(NEW), Gruus({"k2": NEW["k2"]})
    for text, given_at in ((GRUUS.public(AOR, INSTANCE), 0), (temporary(), AT)):
        uri = parse_uri(text)
        assert rotated.read(uri, "example.test") == Gruu(AOR, NAME, given_at)
        assert later.read(uri, "example.test") is None
    assert later.read(parse_uri(rotated.temporary(AOR, INSTANCE, AT, bytes(SALT))), "example.test") is not None


@pytest.mark.parametrize(
    "instance", ["<x y>", '<">', "<a;b=c>", "plain", "<a.b>", "<%41>", "<>", "<urn:x:" + "y" * 240]
)
@pytest.mark.parametrize("aor", [AOR, "jos%C3%A9@example.test", "a;b&c@example.test", "u" * 64 + "@example.test"])
def test_r37_whatever_the_instance_and_the_user_both_can_be_read_again(instance: str, aor: str) -> None:
    for text in (GRUUS.public(aor, instance), temporary(aor=aor, instance=instance)):
        found = GRUUS.read(parse_uri(text), "example.test")
        assert found is not None
        assert found.aor == aor
        assert found.instance in (instance.lower(), instance[1:-1].lower())


@pytest.mark.parametrize(
    ("instance", "can"),
    [(INSTANCE, True), ("plain", True), (None, False), ("", False), ("<é>", False), ("a\tb", False)],
)
def test_r37_only_an_instance_that_a_uri_can_hold_has_gruus(instance: str | None, can: bool) -> None:
    assert can_have(instance) == can
