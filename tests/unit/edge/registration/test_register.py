"""REGISTER through the edge's core: what is refused, and what is challenged."""

import msgspec
import pytest

from edge.core.actions import Unserved
from edge.core.answers import AMPLIFICATION
from edge.core.flow import Flow
from events.limits import USERNAME
from tests.kit.edge import (
    NOW,
    UDP,
    answer,
    asked,
    authorization,
    challenge_nonce,
    core,
    credible,
    heard,
    receive,
    request,
)

# --- refused for what it says -------------------------------------------------------------------------------------


def test_r01_request_uri_of_another_domain_is_403() -> None:
    assert answer(core(), request("REGISTER", "sip:elsewhere.test")).status == 403


def test_r01_a_phone_with_a_domain_of_nobodys_is_noted_for_its_operator() -> None:
    edge = core()
    data = request("REGISTER", "sip:elsewhere.test", "User-Agent: Desk 7", to="<sip:alice:s3cret@elsewhere.test>")
    (noted,) = receive(edge, data).unserved
    assert noted == Unserved("198.51.100.7", "udp", "elsewhere.test", "alice@elsewhere.test", "Desk 7")
    assert not receive(edge, data, now=NOW + 59).unserved, "a phone that goes on trying is noted once a minute"
    assert receive(edge, data, now=NOW + 61).unserved == [noted]


@pytest.mark.parametrize("to", ["<tel:+358>", "Bob <", "<sip:a%00b@elsewhere.test>"])
def test_r01_p24_what_is_noted_can_stand_in_any_log(to: str) -> None:
    data = request("REGISTER", "sip:elsewhere.test", f"User-Agent: \xff\x07\u202e{'a' * 999}", to=to)
    for noted in receive(core(), data).unserved:
        assert all(len(text) <= 100 and text.isprintable() for text in noted)
        assert "".join(noted).encode()


def test_s01_a_flood_of_unserved_domains_is_noted_once_a_second() -> None:
    edge = core()
    sources = [msgspec.structs.replace(UDP, remote_host=f"10.1.{n // 250}.{n % 250}") for n in range(1000)]
    noted = [
        receive(edge, request(uri="sip:elsewhere.test"), flow, NOW + n / 500).unserved for n, flow in enumerate(sources)
    ]
    assert sum(map(len, noted)) in (2, 3)


def test_r02_unknown_require_is_420_with_unsupported() -> None:
    response = answer(
        core(), request("REGISTER", "sip:example.test", "Require: 100rel, path, gruu", "Proxy-Require: timer")
    )
    assert response.status == 420
    assert response.values("unsupported") == ["100rel", "timer"]


def test_r02_require_path_is_known() -> None:
    assert answer(core(), request("REGISTER", "sip:example.test", "Require: Path")).status == 401


@pytest.mark.parametrize("to", ["<tel:+358>", "isbn:2983792873", "<http://www.example.test>"])
def test_r07_to_that_is_neither_sip_nor_sips_is_400(to: str) -> None:
    assert answer(core(), request(to=to)).status == 400


def test_request_uri_of_unknown_scheme_is_416() -> None:
    assert answer(core(), request("REGISTER", "nobodyKnowsThisScheme:totallyopaque")).status == 416


def test_max_forwards_0_is_483_only_where_the_request_would_go_on() -> None:
    """A registrar is no next hop (RFC 3261 section 16.3 is a proxy's)."""
    assert answer(core(), request(max_forwards="0")).status == 401
    assert answer(core(), request("REGISTER", "sip:elsewhere.test", max_forwards="0")).status == 483


@pytest.mark.parametrize(
    "contact", ["<sip:a@b>;q=1.5", "<sip:a@b>;q=0.1234", "<sip:a@b>;reg-id=0", "<sip:a@b>;reg-id=x"]
)
def test_r24_bad_contact_parameters_are_400(contact: str) -> None:
    assert answer(core(), credible(contact=contact)).status == 400


def test_text_that_is_no_utf8_never_gets_into_a_record() -> None:
    edge = core()
    for field in ("to", "call_id"):
        value = {"to": "<sip:al\udcffice@example.test>", "call_id": "call\udcff"}[field]
        actions = receive(edge, credible(**{field: value}))
        assert not actions.publishes
        assert [r.status for r in heard(actions)] in ([400], [])
    actions = receive(edge, credible(contact="<sip:a@b>;x=\udcff"))
    assert not actions.publishes
    assert heard(actions)[0].status == 400
    assert actions.drops == {"not-utf-8": 1}
    assert not len(edge.registers)


def test_user_agent_is_cut_and_cleaned() -> None:
    edge = core()
    row = "User-Agent: Tele\udcfffon " + "x" * 400
    command = asked(receive(edge, credible(row)))
    assert command.register.user_agent.startswith("Tele\ufffdfon xxx")
    assert len(command.register.user_agent) == 255


# --- challenged ---------------------------------------------------------------------------------------------------


def test_r03_a15_without_credentials_one_stateless_401() -> None:
    edge = core()
    actions = receive(edge, request())
    (response,) = heard(actions)
    assert response.status == 401
    assert not actions.publishes
    assert not len(edge.registers)
    assert edge.next_timer() is None


def test_a15_a_repeated_request_gets_the_same_to_tag() -> None:
    edge = core()
    first, again = answer(edge, request()), answer(core(), request(), now=NOW + 0.5)
    assert first.to.tag == again.to.tag
    assert first.to.tag
    assert answer(edge, request(call_id="call-2")).to.tag != first.to.tag


def test_a03_a02_challenge_has_qop_and_the_domain_as_realm() -> None:
    edge = core(own_addresses=True)
    for uri in ("sip:example.test", "sip:EXAMPLE.test:5070", "sip:192.0.2.1", "sip:localhost"):
        challenge = answer(edge, request("REGISTER", uri)).first("www-authenticate") or ""
        assert 'realm="example.test"' in challenge
        assert 'qop="auth"' in challenge
        assert "stale" not in challenge


def test_a04_one_challenge_for_each_algorithm_in_the_domains_order() -> None:
    response = answer(core(), request("REGISTER", "sip:other.test", "User-Agent: " + "x" * 100))
    rows = response.values("www-authenticate")
    assert ["SHA-256" in rows[0], "MD5" in rows[1]] == [True, True]
    assert all('realm="other.test"' in row for row in rows)


@pytest.mark.parametrize(
    "row",
    [
        "Authorization: Basic YWxpY2U6c2VjcmV0",
        "Authorization: NoOneKnowsThisScheme opaque-data=here",
        "Authorization: Digest garbage",
        authorization(realm="elsewhere.test"),
        authorization(algorithm="SHA-256"),
        authorization(given_nonce="k1.6553f100.00000000.ffffffffffffffffffffffffffffffff"),
        authorization(given_nonce="forged"),
        authorization(age=700),
    ],
)
def test_a11_a14_a15_credentials_that_nobody_can_use_are_a_plain_401(row: str) -> None:
    edge = core()
    response = answer(edge, request("REGISTER", "sip:example.test", row))
    assert response.status == 401
    assert "Digest" in (response.first("www-authenticate") or "")
    assert "stale" not in (response.first("www-authenticate") or "")
    assert not len(edge.registers)


def test_a08_an_aged_genuine_nonce_is_called_stale_and_nothing_is_published() -> None:
    edge = core()
    response = answer(edge, request("REGISTER", "sip:example.test", authorization(age=301)))
    assert "stale=true" in (response.first("www-authenticate") or "")
    assert not len(edge.registers)


def test_a07_a_nonce_of_another_edge_with_the_same_keys_is_good() -> None:
    given = challenge_nonce(answer(core(), request()))
    asked(receive(core(), request("REGISTER", "sip:example.test", authorization(given_nonce=given))))


def test_a14_our_credentials_count_in_any_position() -> None:
    others = authorization(realm="elsewhere.test", username="mallory")
    for rows in ((others, authorization()), (authorization(), others)):
        assert asked(receive(core(), request("REGISTER", "sip:example.test", *rows))).digest.username == "alice"


def test_a16_a_live_nonce_is_taken_without_a_new_401() -> None:
    assert asked(receive(core(), request("REGISTER", "sip:example.test", authorization(age=299, nc=7)))).digest.nc == 7


def test_a10_digest_uri_of_the_same_domain_passes_and_of_another_is_400() -> None:
    edge = core()
    same = authorization(uri="sip:example.test:5060")
    assert asked(receive(edge, request("REGISTER", "sip:example.test", same))).digest.uri == "sip:example.test:5060"
    other = authorization(uri="sip:other.test")
    assert (
        answer(
            edge, request("REGISTER", "sip:example.test", other, call_id="2", via="SIP/2.0/UDP h;branch=z9hG4bK2")
        ).status
        == 400
    )


def test_s02_a_udp_answer_is_at_most_twice_the_request() -> None:
    short = (
        b"REGISTER sip:other.test SIP/2.0\r\nv:SIP/2.0/UDP h\r\nf:sip:a@b;tag=1\r\nt:sip:a@b\r\ni:1\r\n"
        b"CSeq:1 REGISTER\r\n\r\n"
    )
    edge = core()
    actions = receive(edge, short)
    for send in actions.sends:
        assert len(send.data) <= AMPLIFICATION * len(short)
    assert not actions.sends
    assert actions.drops == {"amplification": 1}
    medium = request("REGISTER", "sip:other.test", via="SIP/2.0/UDP h;branch=z9hG4bKx", contact=None)
    (send,) = receive(edge, medium).sends
    assert len(send.data) <= AMPLIFICATION * len(medium)
    assert send.data.count(b"WWW-Authenticate") == 1


def test_s03_a_user_name_that_fits_no_table_is_a_plain_401_and_no_record() -> None:
    """What counts failures would have to keep it: 8 KiB each, of whoever wants."""
    edge = core()
    row = authorization(username="a" * (USERNAME + 1))
    assert answer(edge, request("REGISTER", "sip:example.test", row)).status == 401
    longest = "a" * USERNAME
    command = asked(receive(edge, request("REGISTER", "sip:example.test", authorization(username=longest))))
    assert command.digest.username == longest


def test_s03_a15_a_storm_of_100000_leaves_no_transaction_and_publishes_nothing() -> None:
    edge = core()
    forged = authorization(given_nonce="k1.6553f100.00000000.ffffffffffffffffffffffffffffffff")
    plain, rubbish = request(), request("REGISTER", "sip:example.test", forged)
    published = sent = 0
    for number in range(50_000):
        source = Flow("udp", "192.0.2.1", 5060, f"198.18.{number >> 8 & 255}.{number & 255}", 5060)
        edge.datagram(plain, source, NOW)
        edge.datagram(rubbish, source, NOW)
        if number % 500 == 499:
            actions = edge.take()
            published += len(actions.publishes)
            sent += len(actions.sends)
    assert (published, sent, len(edge.registers), edge.next_timer()) == (0, 100_000, 0, None)


def test_s01_a_source_over_its_rate_gets_nothing_and_others_are_served() -> None:
    edge = core(challenges_per_second=2.0)
    for _ in range(5):
        edge.datagram(request(), UDP, NOW)
    actions = edge.take()
    assert len(actions.sends) == 2
    assert actions.drops == {"rate-limited": 3}
    assert answer(edge, request(), Flow("udp", "192.0.2.1", 5060, "198.51.100.8", 1)).status == 401
    assert answer(edge, request(), UDP, NOW + 0.5).status == 401
    # Credentials that somebody can check are not counted.
    asked(receive(edge, credible()))
