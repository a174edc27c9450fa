"""What the edge's settings say by default, and which it refuses."""

import pytest

from authsvc.memory.nonces import COPY_MILLISECONDS
from edge.config import LONGEST_REPLY, EdgeConfig, core_settings
from registrar.decider import MEMORY_MS
from runtime.config import Common
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
