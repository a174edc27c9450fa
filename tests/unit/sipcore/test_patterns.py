"""Regular expressions mean the same on every Python that we run on."""

import importlib
import pkgutil
import re

import pytest

import edge.core
import sipcore

MODULES = [
    module.name
    for package in (sipcore, edge.core)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]
GROUP_REPEATED_POSSESSIVELY = re.compile(r"(?<!\\)\)(?:[*+?]|\{[0-9,]+\})\+")


@pytest.mark.parametrize("name", MODULES)
def test_no_group_is_repeated_possessively(name: str) -> None:
    # Python before 3.11.5 (Debian 12 has 3.11.2) does not go back where such a group fails in its middle:
    # `sip:a@b:` was a URI there, and a quoted string needed no end.
    patterns = [each.pattern for each in vars(importlib.import_module(name)).values() if isinstance(each, re.Pattern)]
    texts = [each.decode("latin-1") if isinstance(each, bytes) else each for each in patterns]
    assert [text for text in texts if GROUP_REPEATED_POSSESSIVELY.search(text)] == []
