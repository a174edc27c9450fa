"""Telephone numbers (Y32, RFC 3966), and gateways by prefix with probing."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.gateways.numbers import aors, rules_of
from edge.core.gateways.routes import ByGateway, Gateway, Gateways, GatewaysConfig
from runtime.config import Domain, Sources
from runtime.errors import ConfigError
from sipcore.telephone import NO_RULE, NumberRule, dialled, digits, normal, spellings, subscriber

CAMPUS = NumberRule("55", "48")
RULES = {"example.test": CAMPUS}


def gateways(emergency: tuple[str, ...] = ("190",), **named: Gateway) -> Gateways:
    return Gateways(GatewaysConfig(named, emergency), RULES)


def test_y32_separators_say_nothing() -> None:
    for text in ("+55 48 3381-2800", "+55(48)3381.2800", "+554833812800", " +55-48-3381-2800 "):
        assert digits(text) == "+554833812800"
    assert digits("(48) 3381-2800") == "4833812800"
    assert digits("*11#") == "*11#"


@pytest.mark.parametrize("text", ["", "alice", "abe", "+", "--", "12a", "+1+2", "1\n2", "٣٤", "+*1", "1" * 65, "a1"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert digits(text) is None


def test_y32_the_domains_rule_makes_national_and_international_spellings_one() -> None:
    assert {normal(n, CAMPUS) for n in ("4833812800", "554833812800", "+554833812800")} == {"+554833812800"}
    assert normal("2800", CAMPUS) == "2800"
    assert normal("4801", CAMPUS) == "4801", "an extension that begins like the area code"
    assert normal("4833812800", NO_RULE) == "4833812800"
    assert spellings("4833812800", CAMPUS) == ["+554833812800", "554833812800", "4833812800"]
    assert spellings("+5511999999999", CAMPUS) == ["+5511999999999"]
    assert spellings("*11", CAMPUS) == ["*11"]


_numbers = st.builds(
    str.__add__, st.sampled_from(["", "+", "55", "+55", "48", "5548"]), st.text(string.digits, min_size=1, max_size=12)
)


@given(
    _numbers, st.sampled_from([CAMPUS, NO_RULE, NumberRule("1", ""), NumberRule("49", "30"), NumberRule("55", "55")])
)
def test_y32_all_spellings_of_a_number_have_the_same_spellings(number: str, rule: NumberRule) -> None:
    found = spellings(number, rule)
    assert normal(number, rule) == found[0]
    assert normal(found[0], rule) == found[0]
    for other in found:
        assert spellings(other, rule) == found
    assert number in found


def test_y32_a_tel_uri_names_a_number_and_its_domain() -> None:
    assert subscriber("+55-48-3381-2800") == ("+554833812800", None)
    assert subscriber("+55-48-3381-2800;ext=12;isub=1") == ("+554833812800", None)
    assert subscriber("2800;phone-context=Example.Test.") == ("2800", "example.test")


def test_y32_a_local_number_without_a_context_is_one_of_this_place_as_in_a_sip_uri() -> None:
    assert subscriber("2800") == ("2800", None)
    assert subscriber("33-81.2800;ext=1") == ("33812800", None)
    assert dialled("2800;ext=1", CAMPUS) == dialled("2800", CAMPUS) == "2800"


def test_y32_a_context_of_digits_is_no_prefix_and_only_ones_own_is_understood() -> None:
    assert subscriber("2800;phone-context=+55-48", CAMPUS) == ("2800", None)
    assert subscriber("2800;phone-context=%2B55", CAMPUS) == ("2800", None)
    assert subscriber("2800;phone-context=+49", CAMPUS) is None
    assert subscriber("2800;phone-context=+55") is None


@pytest.mark.parametrize(
    "opaque",
    ["alice", "", "2800;phone-context=", "2800;phone-context=a_b", "+1;m-x=1", "+1;a=1;A=2", "+1;;", "+1;=2"],
)
def test_a_tel_uri_that_names_nothing_for_certain_is_none(opaque: str) -> None:
    assert subscriber(opaque) is None


@given(st.text())
def test_no_text_breaks_the_numbers(text: str) -> None:
    subscriber(text, CAMPUS)
    number = dialled(text, CAMPUS)
    assert number is None or normal(number, CAMPUS)


def test_y32_the_core_is_given_the_aor_of_a_tel_uri() -> None:
    domains = {"example.test": Domain(country="55", area="48"), "plain.test": Domain()}
    aor = aors(rules_of(domains), domains)
    assert aor("+55-48-3381-2800", "example.test") == "+554833812800@example.test"
    assert aor("2800", "example.test") == "2800@example.test"
    assert aor("2800", "plain.test") == "2800@plain.test"
    assert aor("2800;phone-context=example.test", "example.test") == "2800@example.test"
    assert aor("2800;phone-context=plain.test", "example.test") == "2800@plain.test"
    assert aor("2800;phone-context=other.test", "example.test") is None
    assert aor("%23%2A11;phone-context=example.test", "example.test") == "%23*11@example.test"


@pytest.mark.parametrize(
    ("domain", "key"),
    [(Domain(country="x"), "country"), (Domain(area="48"), "area"), (Domain(country="٣"), "country")],
)
def test_a_wrong_rule_is_refused_by_its_key(domain: Domain, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"domains\.example\.test\.{key}"):
        rules_of({"example.test": domain})


def test_the_longest_prefix_decides_and_the_number_is_rewritten() -> None:
    trunks = gateways(
        all=Gateway("sip:192.0.2.1", ("",)),
        brazil=Gateway("sip:192.0.2.2:5070;transport=tcp", ("+55",), strip=3, prepend="0"),
        outside=Gateway("sip:gw.example.net", ("0",), strip=1),
    )
    assert trunks.ways("4833812800", "example.test") == [
        ByGateway("brazil", "sip:04833812800@192.0.2.2:5070;transport=tcp")
    ]
    assert trunks.ways("+1-212-5550100", "example.test") == [ByGateway("all", "sip:+12125550100@192.0.2.1")]
    assert trunks.ways("0330", "example.test") == [ByGateway("outside", "sip:330@gw.example.net")]
    assert trunks.ways("2%23", "example.test") == [ByGateway("all", "sip:2%23@192.0.2.1")]
    assert trunks.ways("2800;phone-context=+55", "example.test") == [ByGateway("all", "sip:2800@192.0.2.1")]
    assert trunks.ways("alice", "example.test") == []


def test_gateways_of_one_prefix_follow_each_other_and_the_dead_are_left_out() -> None:
    trunks = gateways(
        one=Gateway("sip:192.0.2.1", ("+",)), two=Gateway("sip:192.0.2.2", ("+",)), last=Gateway("sip:192.0.2.3", ("",))
    )
    assert [way.gateway for way in trunks.ways("+1", "example.test")] == ["one", "two"]
    trunks.unanswered("one")
    assert [way.gateway for way in trunks.ways("+1", "example.test")] == ["one", "two"], "one lost probe is nothing"
    trunks.unanswered("one")
    assert [way.gateway for way in trunks.ways("+1", "example.test")] == ["two"]
    for _ in range(2):
        trunks.answered("two", 503)
    assert [way.gateway for way in trunks.ways("+1", "example.test")] == ["last"]
    trunks.answered("one", 404)
    assert [way.gateway for way in trunks.ways("+1", "example.test")] == ["one"]


def test_a_gateway_is_only_for_callers_of_its_domains() -> None:
    trunks = gateways(one=Gateway("sip:192.0.2.1", ("",), domains=("example.test",)))
    assert trunks.ways("123", "example.test")
    assert not trunks.ways("123", "other.test")


def test_y33_an_emergency_number_goes_by_any_gateway_and_by_dead_ones_last() -> None:
    trunks = gateways(
        mobile=Gateway("sip:192.0.2.1", ("+",), strip=1, domains=("other.test",)),
        police=Gateway("sip:192.0.2.2", ("190",)),
    )
    assert [way.gateway for way in trunks.ways("1900", "example.test")] == ["police"]
    assert trunks.ways("190", "example.test") == [
        ByGateway("police", "sip:190@192.0.2.2"),
        ByGateway("mobile", "sip:190@192.0.2.1"),
    ]
    for _ in range(2):
        trunks.unanswered("police")
    assert [way.gateway for way in trunks.ways("190", "example.test")] == ["mobile", "police"]


def test_a_gateway_is_probed_at_once_and_then_at_its_interval() -> None:
    trunks = gateways(
        one=Gateway("sip:192.0.2.1", probe_seconds=10.0), never=Gateway("sip:192.0.2.2", probe_seconds=0.0)
    )
    assert trunks.due(100.0) == [("one", "sip:192.0.2.1", True)]
    assert trunks.due(109.9) == []
    assert trunks.due(110.0) == [("one", "sip:192.0.2.1", True)]
    assert trunks.alive("never")
    trunks.unanswered("gone from the file")


@pytest.mark.parametrize(
    ("gateway", "key"),
    [
        (Gateway("192.0.2.1"), "uri"),
        (Gateway("sip:a@192.0.2.1"), "uri"),
        (Gateway("tel:1"), "uri"),
        (Gateway("sip:h", strip=-1), "strip"),
        (Gateway("sip:h", prepend="x@"), "prepend"),
    ],
)
def test_a_wrong_gateway_is_refused_by_its_key(gateway: Gateway, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"gateways\.trunk\.{key}"):
        gateways(trunk=gateway)


def test_gateways_are_read_from_the_file_and_the_environment() -> None:
    file = {"gateways": {"trunk": {"uri": "sip:192.0.2.1", "prefixes": ["+"], "strip": 1}}, "domain": "example.test"}
    assert Sources({}, file).section(GatewaysConfig).gateways["trunk"].prefixes == ("+",)
    config = Sources({"RAMAL_GATEWAYS": '{"trunk": {"uri": "sip:192.0.2.1"}}', "RAMAL_EMERGENCY": "190, 192"}, {})
    assert config.section(GatewaysConfig) == GatewaysConfig({"trunk": Gateway("sip:192.0.2.1")}, ("190", "192"))
    with pytest.raises(ConfigError, match="gateways"):
        Sources({}, {"gateways": {"trunk": {"url": "sip:192.0.2.1"}}}).section(GatewaysConfig)
