"""What the documents name is there: links, anchors, and the tests that keep what docs/conformance.md claims."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/*.md", "docs/pt/*.md", "docs/events/*.md", "tests/README.md", "tests/*/README.md")
    for path in sorted(ROOT.glob(pattern))
]
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:href|src|srcset)=\"([^\"]+)\"")
_BARE = re.compile(r"<(https?://[^>]*)>")


def links(document: Path) -> list[str]:
    """Every target, in Markdown and in HTML; none of those in code."""
    text = _CODE.sub("", document.read_text())
    return [*("".join(found) for found in _LINK.findall(text)), *_BARE.findall(text)]


def anchors(document: Path) -> set[str]:
    """What GitHub makes of its headings."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        again = sum(1 for other in found if re.fullmatch(re.escape(name) + r"(-\d+)?", other))
        found.add(f"{name}-{again}" if again else name)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """Those within the repository; of others only the form can be told here."""
    for target in links(document):
        if ":" in target.partition("/")[0]:
            url = urlsplit(target)
            assert url.scheme in ("http", "https", "mailto"), target
            assert url.scheme == "mailto" or re.fullmatch(
                r"[a-z0-9.-]+\.[a-z]+|localhost|127\.0\.0\.1", url.hostname or ""
            )
            continue
        path, _, anchor = target.partition("#")
        there = document.parent / path if path else document
        assert there.exists(), target
        assert there.resolve().is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(there), target


def test_every_test_that_conformance_names_is_there_and_bears_what_is_said() -> None:
    document = ROOT / "docs" / "conformance.md"
    named = 0
    for file, link, words in re.findall(
        r"\[(test_\w+\.py)\]\(([^)]+)\)((?:,? ?(?:[A-Z]\d\d|`\w+`))*)", document.read_text()
    ):
        path = (document.parent / link).resolve()
        assert path.name == file
        assert path.is_relative_to(ROOT / "tests"), link
        text = path.read_text()
        for number in re.findall(r"\b[A-Z]\d\d\b", words):
            named += 1
            assert re.search(rf"\b{number}\b|def test_(?:[a-z]\d\d_)*{number.lower()}_", text), f"{number} in {file}"
        for name in re.findall(r"`(\w+)`", words):
            named += 1
            assert f"def {name}(" in text, f"{name} in {file}"
    assert named > 100


def test_conformance_says_of_every_line_what_keeps_it_or_that_it_is_not_done() -> None:
    """A row without a test says that nothing is done, and nothing else."""
    lines = (ROOT / "docs" / "conformance.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith(("| section", "| RFC |"))]
    assert len(rows) > 50
    for row in rows:
        assert "](../tests/" in row.rstrip(" |").rpartition("|")[2] or "**Not done" in row, row
