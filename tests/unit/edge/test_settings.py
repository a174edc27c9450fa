"""What the edge's settings say by default, and which it refuses."""

from typing import Any, cast

import msgspec
import pytest

from authsvc.memory.nonces import COPY_MILLISECONDS
from edge.config import LONGEST_REPLY, EdgeConfig, core_settings, endpoint
from edge.service import build
from registrar.decider import MEMORY_MS
from runtime.config import Common, Sources
from runtime.errors import ConfigError


def test_t01_udp_and_tcp_are_open_on_5060_by_default() -> None:
    assert EdgeConfig().udp == EdgeConfig().tcp == ("0.0.0.0:5060",)


def test_r19_a_copy_is_decided_while_the_registrar_remembers_the_first() -> None:
    assert COPY_MILLISECONDS + LONGEST_REPLY * 1000 <= MEMORY_MS


@pytest.mark.parametrize("seconds", [0, -1, LONGEST_REPLY + 0.001, float("inf"), float("nan")])
def test_a_wait_for_replies_that_outlives_the_registrars_memory_is_refused_by_name(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"RAMAL_EDGE_REPLY_SECONDS: .*2\.0"):
        core_settings(EdgeConfig(reply_seconds=seconds), Common(), frozenset())


def test_the_longest_wait_is_accepted() -> None:
    settings = core_settings(EdgeConfig(reply_seconds=LONGEST_REPLY), Common(), frozenset())
    assert settings.reply_seconds == LONGEST_REPLY


@pytest.mark.parametrize(("text", "pair"), [("0.0.0.0:5060", ("0.0.0.0", 5060)), ("[::]:0", ("::", 0))])
def test_endpoints(text: str, pair: tuple[str, int]) -> None:
    assert endpoint(text, "K") == pair


@pytest.mark.parametrize("text", ["5060", "host", "host:", ":1", "host:70000", "host:x"])
def test_bad_endpoints_name_the_key(text: str) -> None:
    with pytest.raises(ConfigError, match="RAMAL_EDGE_UDP"):
        endpoint(text, "RAMAL_EDGE_UDP")


def test_bad_settings_name_the_key() -> None:
    with pytest.raises(ConfigError, match="RETRY_AFTER"):
        core_settings(EdgeConfig(retry_after=(9, 1)), Common(), frozenset())
    with pytest.raises(ConfigError, match="REPLY_SECONDS"):
        core_settings(EdgeConfig(reply_seconds=0), Common(), frozenset())
    with pytest.raises(ConfigError, match="RAMAL_KEYS"):
        build(Sources({}, {}), cast(Any, None), cast(Any, None))
    for key, value in (("ADVERTISED", '{"sctp":"x"}'), ("SERVICE_NAME", "sip.example.test:99999")):
        environ = {"RAMAL_KEYS": "k:" + "00" * 32, f"RAMAL_EDGE_{key}": value}
        with pytest.raises(ConfigError, match=f"RAMAL_EDGE_{key}"):
            build(Sources(environ, {}), cast(Any, None), cast(Any, None))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("origins", ("phone.example.test",)),
        ("origins", ("https://phone.example.test/",)),
        ("service_name", "a b"),
        ("service_name", "sip:sip.example.test"),
        ("service_name", "sip.example.test;lr"),
        ("service_name", "alice@example.test"),
        ("edges", "nohost"),
    ],
)
def test_a_name_that_nobody_could_follow_is_refused_before_anything_is_waited_for(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"RAMAL_EDGE_{setting.upper()}: "):
        core_settings(msgspec.structs.replace(EdgeConfig(), **{setting: value}), Common(), frozenset())


@pytest.mark.parametrize("name", ["sip.example.test", "127.0.0.1:5060", "[2001:db8::1]:5060", "example.test:5060"])
def test_a_host_with_or_without_a_port_is_a_service_name(name: str) -> None:
    core_settings(EdgeConfig(service_name=name), Common(), frozenset())
