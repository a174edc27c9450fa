"""sipcore.digest and sipcore.nonce."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipcore import nonce
from sipcore.digest import (
    ALGORITHMS,
    challenge,
    expected_response,
    ha1,
    parse_credentials,
    same,
    select_credentials,
)
from sipcore.nonce import Nonce

MD5, SHA = "0" * 32, "a" * 64
GOOD = {
    "username": '"alice"',
    "realm": '"example.test"',
    "nonce": '"n"',
    "uri": '"sip:example.test"',
    "response": f'"{MD5}"',
    "algorithm": "MD5",
    "qop": "auth",
    "nc": "0000000a",
    "cnonce": '"c"',
}


def header(**changed: str | None) -> str:
    params = {**GOOD, **changed}
    return "Digest " + ", ".join(f"{name}={value}" for name, value in params.items() if value is not None)


RFC7616 = {
    "method": "GET",
    "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    "cnonce": "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    "uri": "/dir/index.html",
}


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_a06_the_vectors_of_rfc_7616_section_3_9_1(algorithm: str, response: str) -> None:
    secret = ha1(algorithm, "Mufasa", "http-auth@example.org", "Circle of Life")
    assert expected_response(algorithm, secret, qop="auth", nc=1, **RFC7616) == response


def test_a06_the_vector_of_rfc_7616_section_3_9_2_as_its_erratum_4897_corrects_it() -> None:
    # The RFC prints the digest of SHA-512 cut to 256 bits, which is not SHA-512/256.
    secret = ha1("SHA-512-256", "J\u00e4s\u00f8n Doe", "api@example.org", "Secret, or not?")
    response = expected_response(
        "SHA-512-256",
        secret,
        "GET",
        "/doe.json",
        "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
        "auth",
        1,
        "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
    )
    assert response == "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"


def test_a06_the_vectors_of_rfc_2617_and_rfc_2069_with_and_without_qop() -> None:
    secret = ha1("MD5", "Mufasa", "testrealm@host.com", "Circle Of Life")
    assert secret == "939e7578ed9e3c518a452acee763bce9"
    nonce_ = "dcd98b7102dd2f0e8b11d0f600bfb0c093"
    uri = "/dir/index.html"
    with_qop = expected_response("MD5", secret, "GET", uri, nonce_, "auth", 1, "0a4f113b")
    assert with_qop == "6629fae49393a05397450978507c4ef1"
    assert expected_response("MD5", secret, "GET", uri, nonce_) == "670fd8c2df070c60b045671b8b24ff02"


def test_credentials_are_read_whole() -> None:
    given_ = parse_credentials(header(opaque='"o"'))
    assert given_ is not None
    assert (given_.username, given_.realm, given_.nonce, given_.uri) == (
        "alice",
        "example.test",
        "n",
        "sip:example.test",
    )
    assert (given_.response, given_.algorithm, given_.qop) == (MD5, "MD5", "auth")
    assert (given_.nc, given_.cnonce, given_.opaque) == (10, "c", "o")


@pytest.mark.parametrize(
    "value",
    [
        header().replace("Digest ", "DIGEST   ").replace(", ", " ,\t"),
        header(username=None) + ',USERNAME="alice"',
        header(qop='"auth"', algorithm='"md5"', nc='"0000000a"'),
        header(realm="example.test", username="alice", nonce="n", uri="sip:example.test", response=MD5, cnonce="c"),
        header(response='"' + MD5.upper() + '"', algorithm=None) + ', x="a, b=\\"c\\""',
        header(username='"a\\lice"'),
        header() + ",",
    ],
)
def test_credentials_in_other_spellings_are_the_same(value: str) -> None:
    given_ = parse_credentials(value)
    assert given_ is not None
    assert (given_.username, given_.realm, given_.nonce, given_.uri) == (
        "alice",
        "example.test",
        "n",
        "sip:example.test",
    )
    assert (given_.response, given_.algorithm, given_.qop, given_.nc) == (MD5, "MD5", "auth", 10)


def test_a05_no_algorithm_means_md5() -> None:
    given_ = parse_credentials(header(algorithm=None))
    assert given_ is not None
    assert given_.algorithm == "MD5"


@pytest.mark.parametrize(
    ("algorithm", "response", "usable"),
    [
        ("MD5", MD5, True),
        ("MD5", MD5 + "0", False),
        ("MD5", SHA, False),
        ("MD5", "g" * 32, False),
        ("MD5", "", False),
        ("SHA-256", SHA, True),
        ("sha-256", SHA, True),
        ("SHA-256", MD5, False),
        ("SHA-512-256", SHA, True),
        ("SHA-512-256", SHA * 2, False),
    ],
)
def test_a05_a_response_has_its_algorithms_length(algorithm: str, response: str, usable: bool) -> None:
    assert (parse_credentials(header(algorithm=algorithm, response=f'"{response}"')) is not None) is usable


@pytest.mark.parametrize(
    "value",
    [
        "NoOneKnowsThisScheme opaque-data=here",
        "Basic YWxpY2U6c2VjcmV0",
        "",
        "Digest",
        "Digest ",
        "Digest x",
        header().replace("Digest ", "Digest"),
        header().replace(", nc", " nc"),
        header() + " x",
        header() + ', username="bob"',
        header() + ', Response="' + MD5 + '"',
        header(username='"alice'),
        header(username='""'),
        header(algorithm="MD5-sess"),
        header(algorithm="SHA-1"),
        header(qop="auth-int"),
        header(qop='"auth,auth-int"'),
        header(nc=None),
        header(nc="1"),
        header(nc="0000000G"),
        header(nc="0000000A"),
        header(cnonce=None),
        header() + ", userhash=true",
        *(header(**{name: None}) for name in ("username", "realm", "nonce", "uri", "response")),
    ],
)
def test_a11_p23_what_nobody_can_check_is_no_credentials(value: str) -> None:
    assert parse_credentials(value) is None


def test_without_qop_there_is_no_nonce_count() -> None:
    given_ = parse_credentials(header(qop=None))
    assert given_ is not None
    assert (given_.qop, given_.nc, given_.cnonce) == (None, None, None)


def test_a14_ours_is_chosen_in_any_position() -> None:
    ours, other = header(), header(realm='"elsewhere"')
    basic, unknown, strong = "Basic x", header(algorithm="MD5-sess"), header(algorithm="SHA-256", response=f'"{SHA}"')
    for values in ([ours, other], [other, ours], [basic, unknown, other, ours]):
        chosen = select_credentials(values, "example.test")
        assert chosen is not None
        assert (chosen.realm, chosen.algorithm) == ("example.test", "MD5")
    chosen = select_credentials([strong, ours], "example.test", ("MD5",))
    assert chosen is not None
    assert chosen.algorithm == "MD5"
    assert select_credentials([basic, unknown, other], "example.test") is None
    assert select_credentials([header(realm='"EXAMPLE.test"')], "example.test") is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a03_every_challenge_has_qop_auth_and_its_algorithm(algorithm: str) -> None:
    value = challenge("example.test", "n", algorithm)
    assert value == f'Digest realm="example.test", nonce="n", algorithm={algorithm}, qop="auth"'
    assert challenge("example.test", "n", algorithm, stale=True) == value + ", stale=true"


def test_a_challenge_quotes_its_realm() -> None:
    assert challenge('a"b\\c', "n", "MD5").startswith('Digest realm="a\\"b\\\\c", ')


def test_a25_credentials_show_nothing() -> None:
    assert repr(parse_credentials(header())) == "<Credentials>"


def test_a26_digests_compare_whole() -> None:
    assert same(MD5, MD5)
    assert not same(MD5, MD5[:-1] + "1")
    assert not same(MD5, MD5[:-1])
    assert not same(MD5, "\udcff")


@given(st.text(max_size=200))
def test_any_text_gives_credentials_or_none(text: str) -> None:
    parse_credentials(text)
    parse_credentials("Digest " + text)


KEYS = {"k2": b"2" * 32, "k1": b"1" * 32}
NOW = 1_700_000_000


def test_a07_any_process_with_the_keys_checks_a_nonce_and_the_first_key_signs() -> None:
    made = nonce.make(KEYS, "example.test", NOW, b"abcd", "192.0.2.1")
    assert made.startswith("k2.")
    assert nonce.check(dict(KEYS), "example.test", made, NOW, 300) is Nonce.FRESH
    assert nonce.issued_at(made) == NOW


def test_a07_an_old_key_verifies_until_it_is_taken_out() -> None:
    old = nonce.make({"k1": KEYS["k1"]}, "example.test", NOW, b"abcd", "192.0.2.1")
    assert nonce.check(KEYS, "example.test", old, NOW, 300) is Nonce.FRESH
    assert nonce.check({"k2": KEYS["k2"]}, "example.test", old, NOW, 300) is Nonce.FORGED


def test_a08_an_old_nonce_is_stale_and_one_of_another_realm_or_key_is_forged() -> None:
    made = nonce.make(KEYS, "example.test", NOW, b"abcd", "192.0.2.1")
    assert nonce.check(KEYS, "example.test", made, NOW + 299, 300) is Nonce.FRESH
    assert nonce.check(KEYS, "example.test", made, NOW + 300, 300) is Nonce.STALE
    assert nonce.check(KEYS, "example.test", made, NOW - nonce.SKEW, 300) is Nonce.FRESH
    assert nonce.check(KEYS, "example.test", made, NOW - nonce.SKEW - 1, 300) is Nonce.STALE
    assert nonce.check(KEYS, "example.org", made, NOW, 300) is Nonce.FORGED
    assert nonce.check({"k2": b"x" * 32}, "example.test", made, NOW, 300) is Nonce.FORGED


def test_a07_a_nonce_changed_in_any_place_is_forged() -> None:
    made = nonce.make(KEYS, "example.test", NOW, b"abcd", "192.0.2.1")
    for place, letter in enumerate(made):
        changed = made[:place] + ("0" if letter != "0" else "1") + made[place + 1 :]
        assert nonce.check(KEYS, "example.test", changed, NOW, 10**9) is Nonce.FORGED
    for changed in (made[:-1], made + "0", made.upper(), "", "x", made.replace(".", "..", 1)):
        assert nonce.check(KEYS, "example.test", changed, NOW, 10**9) is Nonce.FORGED


def test_two_salts_make_two_nonces_that_fit_a_quoted_string() -> None:
    made = {nonce.make(KEYS, "example.test", NOW, bytes([salt] * 6), "192.0.2.1") for salt in range(100)}
    assert len(made) == 100
    assert all(len(one) < 80 and '"' not in one and "\\" not in one for one in made)


@given(st.text(max_size=100))
def test_any_text_is_at_most_a_forged_nonce_and_older_than_any(text: str) -> None:
    assert nonce.check(KEYS, "example.test", text, NOW, 300) is Nonce.FORGED
    assert nonce.issued_at(text) == 0


def test_s03_a_nonce_knows_the_address_it_was_given_to() -> None:
    made = nonce.make(KEYS, "example.test", NOW, b"abcd", "192.0.2.1")

    assert nonce.given_to(KEYS, made, "192.0.2.1")
    assert not nonce.given_to(KEYS, made, "192.0.2.2")
    assert not nonce.given_to({"k9": b"x" * 32}, made, "192.0.2.1")
    assert not nonce.given_to(KEYS, "no nonce of ours", "192.0.2.1")
