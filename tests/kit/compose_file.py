"""compose.yaml as compose reads it: merged, with the variables of an `.env` put in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PATH = ROOT / "compose.yaml"
DEFAULTS = {"HOST_ADDRESS": "192.0.2.10", "SERVICE_UID": "10001", "SERVICE_GID": "10001", "SIP_DOMAIN": "example.test"}
"""What .env has, made by deploy/make-secrets."""
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::([-?])([^}]*))?\}|(\$))")


def read(variables: Mapping[str, str] = DEFAULTS) -> dict[str, Any]:
    """The whole file. KeyError where a variable is neither given nor has a default."""

    def put_in(found: re.Match[str]) -> str:
        name, kind, other, dollar = found.groups()
        if dollar:
            return "$"
        if name in variables or kind != "-":
            return variables[name]
        return str(other)

    document: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(put_in, PATH.read_text()))
    return document


def ours(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The services that run our image, by name."""
    return {name: each for name, each in document["services"].items() if each["image"] == "localhost/ramal:dev"}


def program(service: Mapping[str, Any]) -> str:
    """Which command of `ramal` it runs."""
    return str(service["command"][0])
