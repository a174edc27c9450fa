"""sipcore.uri: RFC 3261 section 19.1."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipcore.errors import ParseError
from sipcore.uri import SHORT, aor, canonical_escapes, equal, parse_uri, received_uri

EQUAL = [
    ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
    ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
    (
        "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
        "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
    ),
    (
        "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
        "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
    ),
]
UNEQUAL = [
    ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
    ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
    ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
]


def same(a: str, b: str) -> bool:
    forth, back = equal(parse_uri(a), parse_uri(b)), equal(parse_uri(b), parse_uri(a))
    assert forth is back
    return forth


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_p15_the_equal_examples_of_the_section_are_equal_both_ways(a: str, b: str) -> None:
    assert same(a, b)


@pytest.mark.parametrize(("a", "b"), UNEQUAL)
def test_p15_the_unequal_examples_of_the_section_are_unequal_both_ways(a: str, b: str) -> None:
    assert not same(a, b)


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        ("sip:a@b", "sips:a@b", False),
        ("sip:a@b", "sip:b", False),
        ("sip:a@b", "sip:a:@b", False),
        ("sip:a:x@b", "sip:a:y@b", False),
        ("sip:a:x@b", "sip:a:%78@b", True),
        ("sip:a@b", "sip:a@b;user=ip", False),
        ("sip:a@b;user=phone", "sip:a@b;user=PHONE", True),
        ("sip:a@b", "sip:a@b;ttl=1", False),
        ("sip:a@b", "sip:a@b;method=INVITE", False),
        ("sip:a@b", "sip:a@b;maddr=192.0.2.1", False),
        ("sip:a@b;lr", "sip:a@b", True),
        ("sip:a@b;lr", "sip:a@b;LR=", True),
        ("sip:a@b;x=%41", "sip:a@b;%78=a", True),
        ("sip:a%3Bb@c", "sip:a;b@c", False),
        ("sip:a%3bb@c", "sip:a%3Bb@c", True),
        ("sip:a@[2001:DB8::1]", "sip:a@[2001:db8:0::1]", True),
        ("sip:a@[2001:db8::1]", "sip:a@[2001:db8::2]", False),
        ("sip:a@b?X=1&y=2", "sip:a@b?Y=2&x=1", True),
        ("sip:a@b?x=1", "sip:a@b?x=1&x=1", False),
        ("tel:+55483381", "tel:+55483381", True),
        ("tel:+55483381", "sip:+55483381@b", False),
        ("tel:1", "tel:2", False),
    ],
)
def test_p15_the_rules_of_the_section(a: str, b: str, result: bool) -> None:
    assert same(a, b) is result


@pytest.mark.parametrize(
    "text", ["sip:b;", "sip:a@b;", "sip:a@b:5060;", "sip:a@b;lr;", "sips:a@b;lr;x=1;", "sip:b;?x=1"]
)
def test_p15_a_semicolon_behind_the_last_parameter_means_nothing(text: str) -> None:
    at, _, headers = text.partition("?")
    assert same(text, at[:-1] + (f"?{headers}" if headers else ""))


@pytest.mark.parametrize("text", ["sip:a@b;;lr", "sip:a@b;;", "sip:a@b;=1", "sip:;", "sip:a@;", "sip:a@b:;"])
def test_p15_a_parameter_without_a_name_is_none(text: str) -> None:
    with pytest.raises(ParseError):
        parse_uri(text)


def test_r16_equality_is_not_transitive() -> None:
    plain, on, off = "sip:c@d", "sip:c@d;security=on", "sip:c@d;security=off"
    assert same(plain, on)
    assert same(plain, off)
    assert not same(on, off)


def test_p16_escapes_are_undone_for_comparing_and_kept_as_sent() -> None:
    for a, b in itertools.permutations(["sip:%61lice@b", "sip:alice@b", "sip:a%6Cice@B"], 2):
        assert same(a, b)
    assert not same("sip:Alice@b", "sip:alice@b")
    assert parse_uri("sip:%61lice@B").user == "%61lice"
    assert str(parse_uri("sip:%61lice@B;X=%41?y=z")) == "sip:%61lice@B;X=%41?y=z"


def test_p16_a_nul_does_not_cut_a_name() -> None:
    assert not same("sip:%00@b", "sip:%00%00@b")
    assert not same("sip:null-%00-null@b", "sip:null-%00@b")
    assert aor(parse_uri("sip:null-%00-null@example.com")) == "null-%00-null@example.com"


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("sip:%61lice@EXAMPLE.org;user=phone;x=1", "alice@example.org"),
        ("sip:alice@example.org", "alice@example.org"),
        ("sips:alice:secret@example.org:5061?x=y", "alice@example.org"),
        ("sip:Alice@example.org", "Alice@example.org"),
        ("sip:a%3bb@example.org", "a%3Bb@example.org"),
        ("sip:a;b=c@example.org", "a;b=c@example.org"),
        ("sip:#31#@example.org", "%2331%23@example.org"),
        ("sip:jos%c3%a9@example.org", "jos%C3%A9@example.org"),
        ("sip:josé@example.org", "jos%C3%A9@example.org"),
        ("sip:a%0d%0ab@example.org", "a%0D%0Ab@example.org"),
        ("sip:a%40b@example.org", "a%40b@example.org"),
        ("sip:a@[2001:DB8::1]:5060", "a@[2001:db8::1]"),
        ("sip:example.org", "example.org"),
    ],
)
def test_r06_the_canonical_aor(uri: str, canonical: str) -> None:
    assert aor(parse_uri(uri)) == canonical
    if "@" in canonical:
        assert aor(parse_uri(f"sip:{canonical}")) == canonical


def test_r07_an_aor_is_sip_or_sips() -> None:
    with pytest.raises(ParseError) as caught:
        aor(parse_uri("isbn:2983792873"))
    assert caught.value.status == 400


@given(st.text(st.characters(codec="utf-8", exclude_characters='%:@<>"', exclude_categories=["Cc", "Zs"]), min_size=1))
def test_p24_a_canonical_user_is_printable_ascii_and_stays_the_same(user: str) -> None:
    canonical = canonical_escapes(user)
    assert canonical.isascii()
    assert canonical.isprintable()
    assert " " not in canonical
    assert canonical_escapes(canonical) == canonical


@given(st.binary(min_size=1, max_size=20))
def test_p16_a_wholly_escaped_user_has_the_same_canonical_form_in_either_case(octets: bytes) -> None:
    upper = "".join(f"%{octet:02X}" for octet in octets)
    assert canonical_escapes(upper) == canonical_escapes(upper.lower().replace("%", "%"))
    assert same(f"sip:{upper}@h", f"sip:{upper.lower()}@h")


URIS = st.builds(
    "sip:{}{}{}{}".format,
    st.sampled_from(["", "a@", "%61@", "A@", "a:p@"]),
    st.sampled_from(["h", "H", "h:5060", "[::1]"]),
    st.sampled_from(["", ";x=1", ";x=2", ";transport=udp", ";lr;x=1", ";x=1;LR", ";user=phone"]),
    st.sampled_from(["", "?a=b", "?A=b&c=d", "?c=d&a=b"]),
)


@given(URIS, URIS)
def test_p15_equality_is_reflexive_and_symmetric(a: str, b: str) -> None:
    assert same(a, a)
    same(a, b)


def test_other_schemes_are_kept_whole() -> None:
    uri = parse_uri("TEL:+1-201-555-0123;phone-context=x")
    assert (uri.scheme, uri.opaque, uri.is_sip) == ("tel", "+1-201-555-0123;phone-context=x", False)
    assert str(parse_uri("soap.beep://192.0.2.103:3002")) == "soap.beep://192.0.2.103:3002"


def test_parameters_are_found_without_case() -> None:
    uri = parse_uri("sip:a@b;LR;Transport=TCP")
    assert (uri.param("lr"), uri.param("transport"), uri.param("x")) == ("", "TCP", None)


def test_n04_a_received_uri_names_transport_and_brackets_ipv6() -> None:
    assert received_uri("UDP", "192.0.2.4", 5062) == "sip:192.0.2.4:5062;transport=udp"
    assert received_uri("tcp", "2001:db8::1", 5060) == "sip:[2001:db8::1]:5060;transport=tcp"


def test_what_is_remembered_of_a_text_is_what_was_read_of_it_and_faults_are_told_each_time() -> None:
    assert parse_uri("sip:alice@example.test") is parse_uri("sip:alice@example.test")
    long = f"sip:{'a' * SHORT}@example.test"
    assert parse_uri(long) is not parse_uri(long)
    for _ in range(2):
        with pytest.raises(ParseError):
            parse_uri("sip:alice@")
