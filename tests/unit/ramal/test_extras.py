"""What is not installed is had by the names of its packages: Ramal is on no index."""

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from ramal.extras import installing

ROOT = Path(__file__).parents[3]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_names_the_packages_as_they_are_pinned(extra: str) -> None:
    words = shlex.split(installing(extra))
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    assert sorted(words[4:]) == sorted(EXTRAS[extra])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_install_what_is_there_as_it_is_pinned(document: Path) -> None:
    """An index may give the name `ramal` to anybody, so nobody is told to install it from there."""
    text = document.read_text()
    assert not re.search(r"pip install '?ramal\b", text)
    pinned = {re.split(r"[=>]=", name)[0]: name for names in EXTRAS.values() for name in names}
    for line in re.findall(r"pip install ([^`\n]*)", text):
        for word in shlex.split(line):
            if (name := re.split(r"[=>]=", word)[0]) in pinned:
                assert word == pinned[name]
