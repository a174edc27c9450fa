"""A wrong value of a setting is answered in words: which setting, what was typed, what may stand there."""

from typing import Any

import msgspec
import pytest

from ramal.system import section_kinds
from runtime.config import Sources
from runtime.errors import ConfigError


def variables() -> list[tuple[str, str, Any]]:
    """Every variable, its section and its field's type."""
    return [
        (f"RAMAL_{name.upper()}_{field.name.upper()}" if name else f"RAMAL_{field.name.upper()}", name, field.type)
        for name, kind in section_kinds().items()
        for field in msgspec.structs.fields(kind)
    ]


def refusal(variable: str, section: str, text: str) -> str:
    """What is said of that value; "" where it is taken."""
    try:
        Sources({variable: text}, {}).section(section_kinds()[section], section)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("text", ["xyzzy", "-1", "", "nan", "inf", "1e99", "{", "[1]", '["a", "b"'])
def test_a_wrong_value_is_answered_by_the_setting_and_never_in_the_words_of_a_library(text: str) -> None:
    for variable, section, _ in variables():
        said = refusal(variable, section, text)

        assert "Expected `" not in said, variable
        assert "\n" not in said, variable
        assert not said or said.startswith(variable) or "REGISTRAR_" in said  # of two that contradict, either


def test_a_number_names_what_was_typed() -> None:
    numbers = [(variable, section) for variable, section, kind in variables() if "int" in str(kind)[:25]]

    assert len(numbers) > 30
    for variable, section in numbers:
        assert f"{variable}: 'many' is not " in refusal(variable, section, "many")


@pytest.mark.parametrize(
    ("variable", "section", "text", "says"),
    [
        ("RAMAL_PARTITIONS", "", "0", "'0' is not a whole number from 1 to 10000"),
        ("RAMAL_HTTP_PORT", "", "99999", "'99999' is not a whole number from 0 to 65535"),
        ("RAMAL_MYSQL_TLS", "mysql", "yes", "'yes' is not true or false"),
        ("RAMAL_MYSQL_TIMEOUT", "mysql", "nan", "'nan' is not a number above 0"),
        ("RAMAL_EDGE_MAX_CALLS", "edge", "-1", "'-1' is not a whole number of at least 1"),
        ("RAMAL_EDGE_LEASE_SECONDS", "edge", "0", "'0' is not a whole number of at least 1"),
        ("RAMAL_EDGE_KEEPALIVE_SECONDS", "edge", "-1", "'-1' is not a number of at least 0"),
        ("RAMAL_EDGE_RETRY_AFTER", "edge", "5", "'5' is not 2 of these, comma-separated: a whole number"),
        ("RAMAL_EDGE_ADVERTISED", "edge", "sip.a.test", "'sip.a.test' is not a table, in the environment one of JSON"),
        ("RAMAL_EDGE_SRTP", "edge", "tls,udpx", "'tls,udpx' is not a list of any of udp, tcp, tls"),
        ("RAMAL_LDAP_HA1_ATTRIBUTES", "ldap", '{"MD6": "sipHA1"}', "'MD6'"),
        ("RAMAL_CDR_CLOSE_EVERY", "cdr", "0", "'0' is not a number above 0"),
        ("RAMAL_REGISTRAR_GRACE", "registrar", "99", "99 must be between 0 and 60"),
        ("RAMAL_TOPIC_PREFIX", "", "a b", "'a b' cannot begin a topic's name"),
    ],
)
def test_what_may_stand_there_is_said(variable: str, section: str, text: str, says: str) -> None:
    assert says in refusal(variable, section, text)
