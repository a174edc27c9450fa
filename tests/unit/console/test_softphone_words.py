"""The softphone's texts: every one in every language, and none that is not used."""

import json
import re
from pathlib import Path

SOURCES = Path(__file__).parents[3] / "console" / "web" / "src"
WORDS: dict[str, dict[str, str]] = json.loads((SOURCES / "words.json").read_text())
CODE = "".join(path.read_text() for path in SOURCES.glob("*.js"))
PAGE = (SOURCES / "index.html").read_text()


def test_every_text_is_there_in_english_and_portuguese() -> None:
    assert set(WORDS) == {"en", "pt"}
    assert list(WORDS["en"]) == list(WORDS["pt"])
    assert all(text.strip() for texts in WORDS.values() for text in texts.values())


def test_a_text_names_the_same_detail_in_both_languages() -> None:
    for key, english in WORDS["en"].items():
        assert english.count("{0}") == WORDS["pt"][key].count("{0}"), key


def test_every_text_that_the_page_names_exists_and_every_text_is_named() -> None:
    named = set(re.findall(r'data-(?:text|label)="(\w+)"', PAGE))
    assert named <= set(WORDS["en"])
    for key in WORDS["en"]:
        group, _, name = key.rpartition(".")
        assert key in named or f'"{name}"' in CODE or f"`{group}.${{" in CODE, key


def test_the_page_has_no_script_and_no_style_of_its_own() -> None:
    """What the Content-Security-Policy would refuse."""
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=|javascript:", PAGE) == []


def test_a_detail_is_put_into_a_text_as_it_is() -> None:
    """A replacement that is a string is a pattern: `$&` in it, which anybody may send, is what was replaced."""
    code = "".join(path.read_text() for path in SOURCES.rglob("*.js"))
    replacements = re.findall(r"\.replace(?:All)?\((?:/(?:[^/\\]|\\.)+/\w*|\"[^\"]*\"), ", code)
    given = re.findall(r"\.replace(?:All)?\((?:/(?:[^/\\]|\\.)+/\w*|\"[^\"]*\"), (\"[^\"$]*\"|\(.*?\) =>)", code)
    assert len(given) == len(replacements) == len(re.findall(r"\.replace(?:All)?\(", code)) > 0
