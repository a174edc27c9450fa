"""The console's texts: every one in every language, and none that is not used; no markup of its own."""

import json
import re
from pathlib import Path

from console.gate import refused

ROOT = Path(__file__).parents[3] / "console"
SOURCES = ROOT / "web" / "src" / "console"
WORDS: dict[str, dict[str, str]] = json.loads((SOURCES / "words.json").read_text())
CODE = "".join(path.read_text() for path in sorted(SOURCES.glob("*.js")))
PAGE = (SOURCES / "console.html").read_text()


def test_every_text_is_there_in_english_and_portuguese_with_the_same_detail() -> None:
    assert list(WORDS["en"]) == list(WORDS["pt"])
    for key, english in WORDS["en"].items():
        assert WORDS["pt"][key].strip()
        assert sorted(re.findall(r"\{\d\}", english)) == sorted(re.findall(r"\{\d\}", WORDS["pt"][key])), key


def test_every_text_that_is_named_exists_and_every_text_is_named() -> None:
    named = set(re.findall(r'data-(?:text|label)="(\w+)"', PAGE))
    said = set(re.findall(r'say\("([\w.]+)"', CODE))
    assert named | said <= set(WORDS["en"])
    for key in WORDS["en"]:
        group, _, _ = key.rpartition(".")
        assert key in named or f'"{key}"' in CODE or f"`{group}.${{" in CODE, key


def test_every_refusal_has_words() -> None:
    code = "".join(path.read_text() for path in sorted(ROOT.glob("*.py")))
    for error in re.findall(r'refused\(\s*\d+,\s*"(\w+)"', code):
        assert f"refused.{error}" in WORDS["en"], error
    assert refused(503, "busy", 2).headers["Retry-After"] == "2"


def test_the_page_has_no_script_no_style_and_no_markup_of_its_own() -> None:
    """What the Content-Security-Policy would refuse."""
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=|javascript:", PAGE) == []
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|setAttribute\(.style", CODE) == []
    )
