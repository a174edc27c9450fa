"""What comments cite is in the repository: sections of the design and of the Kafka facts, lines of the checklist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sipcore", "events", "runtime", "edge", "authsvc", "registrar", "locator", "cdr", "console", "ramal")
SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
DESIGN = (ROOT / "docs/design.md").read_text()
LINES = frozenset(re.findall(r"^- ([A-Z]\d\d) ", (ROOT / "docs/checklist.md").read_text(), re.MULTILINE))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_citation_leads_to_a_place_in_the_repository(file: Path) -> None:
    text = " ".join(file.read_text().split())
    for section in re.findall(r"DESIGN,? sections? (\d+)", text):
        assert f"\n## {section}. " in DESIGN, f"DESIGN has no section {section}"
    for name in re.findall(r'DESIGN, "([^"]+)"', text):
        assert f"**{name}" in DESIGN or f'"{name}"' in DESIGN, f"DESIGN has nothing that begins with {name}"
    for cited in re.findall(r"CHECKLIST ([A-Z]\d\d(?:, [A-Z]\d\d)*)", text):
        assert frozenset(cited.split(", ")) <= LINES, cited
    assert "../shared" not in text


def test_every_section_that_the_design_names_is_there() -> None:
    assert [int(number) for number in re.findall(r"^## (\d+)\. ", DESIGN, re.MULTILINE)] == list(range(1, 15))


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*.md")), ids=lambda file: file.name)
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    for name in re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)`", document.read_text()):
        assert (ROOT / name).exists(), name
