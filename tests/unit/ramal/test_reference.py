"""docs/configuration.md is what the code says of every setting."""

import msgspec
import pytest

from edge.core.gateways.routes import GatewaysConfig
from ramal import reference
from ramal.system import section_kinds, sections
from runtime.config import Sources


def test_the_reference_of_settings_says_what_the_code_says() -> None:
    assert reference.DOCUMENT.read_text() == reference.document(), "run `make settings`"


def test_a_setting_without_a_text_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Mute(msgspec.Struct):
        colour: str = "red"

    monkeypatch.setattr(reference, "told", lambda kind: {})
    monkeypatch.setattr(reference, "section_kinds", lambda: {"edge": Mute})
    assert reference.main(["--check"]) == 1
    assert "Mute.colour: no text below it" in capsys.readouterr().out


def test_gateways_and_emergency_numbers_may_stand_in_the_file_as_every_other_setting() -> None:
    """`sections` is what every service asks of its settings at its start, and what `ramal config` prints."""
    file = {"gateways": {"pstn": {"uri": "sip:192.0.2.9", "prefixes": ["0"]}}, "emergency": ["190"]}
    shared, edges = msgspec.structs.asdict(sections(Sources({}, file))[""]), Sources({}, file).section(GatewaysConfig)
    assert {name: shared[name] for name in edges.__struct_fields__} == msgspec.structs.asdict(edges)
    assert edges.gateways["pstn"].prefixes == ("0",)
    assert not Sources({"RAMAL_GATEWAYS": "{}", "RAMAL_EMERGENCY": "190"}, {}).check_names(section_kinds())
