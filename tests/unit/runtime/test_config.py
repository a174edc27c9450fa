"""Configuration: the environment over the file, typed, every error names the key, secrets stay masked."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from edge.core.gateways.routes import GatewaysConfig
from runtime.config import Common, Kafka, MySQL, Secret, Sources, hmac_keys, masked
from runtime.errors import ConfigError


def sources(environ: dict[str, str], toml: dict[str, object] | None = None) -> Sources:
    return Sources(environ, toml or {}, "ramal.toml")


def test_the_environment_wins_over_the_file() -> None:
    given = sources({"RAMAL_MYSQL_PORT": "3307"}, {"mysql": {"port": 1, "host": "db"}})

    settings = given.section(MySQL, "mysql")

    assert (settings.host, settings.port) == ("db", 3307)


def test_shared_settings_have_no_section_in_their_names() -> None:
    assert sources({"RAMAL_DOMAIN": "campus.test"}).section(Common).domain == "campus.test"


def test_command_line_options_win_over_both() -> None:
    assert sources({"RAMAL_DOMAIN": "a.test"}).section(Common, domain="b.test").domain == "b.test"


@pytest.mark.parametrize(
    ("environ", "toml", "key"),
    [
        ({"RAMAL_MYSQL_PORT": "many"}, {}, "RAMAL_MYSQL_PORT"),
        ({}, {"mysql": {"port": "many"}}, "ramal.toml: mysql.port"),
        ({}, {"mysql": {"prot": 1}}, "ramal.toml: mysql.prot"),
        ({}, {"mysql": 5}, r"ramal.toml: \[mysql\]"),
        ({"RAMAL_MYSQL_PASSWORD_FILE": "/does/not/exist"}, {}, "RAMAL_MYSQL_PASSWORD_FILE"),
    ],
)
def test_an_error_names_the_key(environ: dict[str, str], toml: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        sources(environ, toml).section(MySQL, "mysql")


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")

    settings = sources({"RAMAL_MYSQL_PASSWORD_FILE": str(tmp_path / "password")}).section(MySQL, "mysql")

    assert settings.password == "s3cret"


def test_a25_a_secret_is_masked_wherever_settings_are_shown() -> None:
    settings = sources({"RAMAL_MYSQL_PASSWORD": "s3cret"}).section(MySQL, "mysql")

    assert "s3cret" not in repr(settings)
    assert masked(settings)["password"] == "***"


class Addresses(msgspec.Struct, frozen=True):
    one: str = "https://me:canary@127.0.0.1:8080/a@b"
    many: tuple[str, ...] = ("edge-1=http://me:c@nary@[::1]:8080", "no address@all")
    named: dict[str, str] = msgspec.field(default_factory=lambda: {"a": "mysql://canary@db"})


def test_a25_a_url_is_shown_without_its_user_and_password() -> None:
    assert masked(Addresses()) == {
        "one": "https://127.0.0.1:8080/a@b",
        "many": ["edge-1=http://[::1]:8080", "no address@all"],
        "named": {"a": "mysql://db"},
    }


def test_a_named_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        Sources.read({"RAMAL_CONFIG": "nowhere.toml"})


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            '{"a.test":{"algorithms":["MD6"]}}',
            ".\"a.test\".algorithms: ['MD6'] is not a list of any of MD5, SHA-256, SHA-512-256",
        ),
        ('{"x":{"algorithms":"MD5"}}', ".x.algorithms: 'MD5' is not a list of any of MD5, SHA-256, SHA-512-256"),
        ('{"x":{},"y":{"redirect":"yes"}}', ".y.redirect: 'yes' is not true or false"),
        ('{"x":{"media":"relayed"}}', ".x.media: 'relayed' is none of direct, bridge, relay"),
        ('{"x":{"country":55}}', ".x.country: 55 is not a text, in quotes"),
        ('{"x":{"area_code":"48"}}', ".x.area_code: there is no such setting; did you mean area?"),
        ('{"x":5}', ".x: 5 is not a table, in the environment one of JSON such as {}"),
        ('{"x":', ": is not JSON: Input data was truncated"),
    ],
)
def test_what_is_wrong_inside_a_table_is_named_and_said_in_words(table: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        sources({"RAMAL_DOMAINS": table}).section(Common)
    assert str(error.value) == f"RAMAL_DOMAINS{sentence}"


def test_the_same_of_gateways_in_a_file() -> None:
    def said(text: str) -> str:
        with pytest.raises(ConfigError) as error:
            Sources({}, tomllib.loads(text), "ramal.toml").section(GatewaysConfig)
        return str(error.value)

    begin = "ramal.toml: gateways.pstn"
    assert said("[gateways.pstn]\nprefixes = ['0']") == f"{begin}.uri: is not set"
    assert said("[gateways.pstn]\nuri = 'sip:192.0.2.1'\nprefixes = [55]") == (
        f"{begin}.prefixes: [55] is not a list of texts, in quotes"
    )
    assert (
        said("[gateways.pstn]\nuri = 'sip:192.0.2.1'\nstrip = 'one'") == f"{begin}.strip: 'one' is not a whole number"
    )
    assert said("[gateways]\npstn = 'sip:192.0.2.1'").startswith(f"{begin}: 'sip:192.0.2.1' is not a table")


def test_settings_of_domains_come_from_tables_or_json() -> None:
    toml: dict[str, object] = {"domains": {"B.test": {"algorithms": ["SHA-256"], "thesis_mode": True}}}

    from_file = sources({}, toml).section(Common).served()
    from_environment = sources({"RAMAL_DOMAINS": '{"b.test": {"algorithms": ["SHA-256"]}}'}).section(Common).served()

    assert from_file["b.test"].thesis_mode
    assert from_environment["b.test"].algorithms == ("SHA-256",)
    assert from_file["example.test"].algorithms == ("MD5",)


def test_numbers_and_switches_are_read_from_text() -> None:
    assert sources({"RAMAL_KAFKA_SESSION_TIMEOUT": "6.5"}).section(Kafka, "kafka").session_timeout == 6.5


@pytest.mark.parametrize("text", ["", "k1", "k1:zz", "k1:00ff", "way-too-long:" + "00" * 16])
def test_keys_that_are_missing_or_weak_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="RAMAL_KEYS") as caught:
        hmac_keys(Secret(text))

    assert text == "" or text not in str(caught.value)


def test_the_first_key_signs() -> None:
    assert list(hmac_keys(f"k2:{'11' * 16},k1:{'22' * 16}")) == ["k2", "k1"]


def test_a_list_of_addresses_may_begin_with_an_ipv6_one() -> None:
    class Listening(msgspec.Struct):
        udp: tuple[str, ...] = ()

    for text in ("[::]:5060,0.0.0.0:5060", '["[::]:5060", "0.0.0.0:5060"]'):
        assert sources({"RAMAL_X_UDP": text}).section(Listening, "x").udp == ("[::]:5060", "0.0.0.0:5060")


SASL = {"security_protocol": "SASL_SSL", "username": "ramal", "password": "s3cret"}


@pytest.mark.parametrize(
    ("section", "given", "says"),
    [
        ("kafka", {"security_protocol": "TLS"}, "RAMAL_KAFKA_SECURITY_PROTOCOL: 'TLS' is none of PLAINTEXT, SSL"),
        ("kafka", {**SASL, "sasl_mechanism": "GSSAPI"}, "RAMAL_KAFKA_SASL_MECHANISM"),
        ("kafka", {**SASL, "username": ""}, "RAMAL_KAFKA_USERNAME: is not set, but RAMAL_KAFKA_SECURITY_PROTOCOL is"),
        ("kafka", {**SASL, "password": ""}, "RAMAL_KAFKA_PASSWORD: is not set, but RAMAL_KAFKA_SECURITY_PROTOCOL is"),
        ("kafka", {"username": "ramal"}, "RAMAL_KAFKA_USERNAME: is of no use while"),
        ("kafka", {"security_protocol": "SSL", "password": "s3cret"}, "RAMAL_KAFKA_PASSWORD: is of no use while"),
        ("kafka", {"ca_file": "ca.pem"}, "RAMAL_KAFKA_CA_FILE: is of no use without RAMAL_KAFKA_SECURITY_PROTOCOL=SSL"),
        ("kafka", {**SASL, "security_protocol": "SASL_PLAINTEXT", "certificate": "me.pem"}, "RAMAL_KAFKA_CERTIFICATE"),
        ("kafka", {"security_protocol": "SSL", "private_key": "me.key"}, "RAMAL_KAFKA_CERTIFICATE: is not set"),
        ("mysql", {"ca_file": "ca.pem"}, "RAMAL_MYSQL_CA_FILE: is of no use without RAMAL_MYSQL_TLS=true"),
        ("mysql", {"tls": "true", "private_key": "me.key"}, "RAMAL_MYSQL_CERTIFICATE: is not set"),
        ("mysql", {"tls": "perhaps"}, "RAMAL_MYSQL_TLS"),
    ],
)
def test_security_settings_that_contradict_each_other_are_refused_by_name(
    section: str, given: dict[str, str], says: str
) -> None:
    environ = {f"RAMAL_{section}_{name}".upper(): value for name, value in given.items()}
    kinds: dict[str, type[Kafka | MySQL]] = {"kafka": Kafka, "mysql": MySQL}
    with pytest.raises(ConfigError, match=says) as raised:
        sources(environ).section(kinds[section], section)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    "bad", ["", ":9092", "kafka:abc", "kafka:99999", "kafka:0", "a:1,,b:2", "a b:1", "http://kafka:1"]
)
def test_brokers_that_are_no_addresses_are_refused_by_name(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"RAMAL_KAFKA_BOOTSTRAP: .* is not host:port"):
        sources({"RAMAL_KAFKA_BOOTSTRAP": bad}).section(Kafka, "kafka")


@pytest.mark.parametrize(
    "good", ["kafka", "kafka:9092", "kafka-1.example.test:9092, 192.0.2.1:9092", "[2001:db8::1]:9092"]
)
def test_brokers_are_a_list_of_addresses(good: str) -> None:
    brokers = sources({"RAMAL_KAFKA_BOOTSTRAP": good}).section(Kafka, "kafka").brokers
    assert brokers == good.replace(" ", "").split(",")
