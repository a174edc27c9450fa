"""The texts of the page on which users enrol: every one in both languages, none unused; no markup of its own."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[3] / "console"
SOURCES = ROOT / "web" / "src" / "enroll"
WORDS: dict[str, dict[str, str]] = json.loads((SOURCES / "words.json").read_text())
CODE = (SOURCES / "enroll.js").read_text()
PAGE = (SOURCES / "enroll.html").read_text()


def test_every_text_is_there_in_english_and_portuguese_with_the_same_detail() -> None:
    assert list(WORDS) == ["en", "pt"]
    assert list(WORDS["en"]) == list(WORDS["pt"])
    for key, english in WORDS["en"].items():
        assert WORDS["pt"][key].strip()
        assert english.count("{0}") == WORDS["pt"][key].count("{0}"), key


def test_every_text_that_is_named_exists_and_every_text_is_named() -> None:
    named = set(re.findall(r'data-(?:text|label)="(\w+)"', PAGE)) | set(re.findall(r'"(\w+)"', CODE))
    refusals = set(re.findall(r'_no\(\d+, "(\w+)"|return "(\w+)"|else "(\w+)"', (ROOT / "enrolment.py").read_text()))
    errors = {f"refused.{name}" for names in refusals for name in names if name} | {
        "refused.notReachable",
        "refused.failed",
    }
    assert errors == {key for key in WORDS["en"] if key.startswith("refused.")}
    assert {key for key in WORDS["en"] if not key.startswith("refused.")} <= named


def test_the_page_has_no_script_no_style_and_no_markup_of_its_own() -> None:
    """What the Content-Security-Policy would refuse."""
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=|javascript:", PAGE) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser", CODE) == []
