"""The reference of all settings, docs/configuration.md, generated from the sections' fields and their docstrings.

python -m ramal.reference            writes it anew (`make settings`)
python -m ramal.reference --check    fails if it is not what the code says, or if a setting has no text
                                     (part of `make check`)
"""

import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from edge.core.gateways.routes import Gateway
from ramal.docstrings import told
from ramal.system import section_kinds
from runtime.config import FILE, PREFIX, Domain, Secret, toml

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
_HEAD = """\
# Settings

[Em português](pt/configuracao.md). This page is generated from the code by `make settings`; do not edit it.

A setting is a variable of the environment, or a key of a file; the environment wins.
The file is `ramal.toml` in the current directory, or the one that `RAMAL_CONFIG` names.
`RAMAL_MYSQL_HOST` is `host` under `[mysql]` in the file, `RAMAL_DOMAIN` is `domain` above all sections.
In the environment a list is comma-separated, and a table is JSON.
Defaults are spelled as `ramal config` prints them; times are in seconds.

Settings are read once, at the start. A wrong value, and a name that resembles a known one, is an error that names it;
other unknown variables are told in the log.
A secret may be given as a file, so that it stands neither in the environment nor in `ramal.toml`:
`RAMAL_MYSQL_PASSWORD_FILE`.
[Which service reads which section](operating.md#1-settings).
"""
_COMMON = "Common"
_TABLES: tuple[tuple[str, str, type[msgspec.Struct]], ...] = (
    ("", 'One domain: `[domains."example.test"]`', Domain),
    ("", "One gateway: `[gateways.NAME]`", Gateway),
)
"""By section: what stands below it as tables of the file with names of their own."""


def document() -> str:
    """The whole page, in Markdown. Raises LookupError that names a setting without a text."""
    lines = [_HEAD]
    for name, kind in section_kinds().items():
        lines += [f"## `[{name}]`" if name else f"## {_COMMON}", ""]
        lines += _table(kind, PREFIX + (f"{name}_" if name else "").upper())
        for section, title, nested in _TABLES:
            if section == name:
                lines += [f"### {title}", "", *_table(nested, "")]
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(kind: type[msgspec.Struct], prefix: str) -> list[str]:
    texts = told(kind)
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        if field.name not in texts:
            raise LookupError(f"{kind.__module__}.{kind.__qualname__}.{field.name}: no text below it")
        name = prefix + field.name.upper() if prefix else field.name
        default = f"`{toml(_default(field))}`" if not field.required else ""
        rows.append(f"| `{name}` | {default} | {_meaning(field, texts[field.name], name)} |")
    return [*rows, ""]


def _default(field: msgspec.structs.FieldInfo) -> Any:
    made = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return str(made) if isinstance(made, Secret) else msgspec.to_builtins(made)


def _meaning(field: msgspec.structs.FieldInfo, text: str, name: str) -> str:
    """What the code says of a setting, with what its type says: the values that it may have, or that it is secret."""
    if field.type is Secret:
        text += f" Secret; better as `{name}{FILE}`."
    unsaid = [value for value in _choices(field.type) if f"`{value}`" not in text]
    if unsaid:
        text += " One of " + ", ".join(f"`{value}`" for value in _choices(field.type)) + "."
    return text.replace("|", "\\|")


def _choices(kind: Any) -> tuple[str, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def main(arguments: list[str]) -> int:
    """Writes or checks; the exit code."""
    try:
        text = document()
    except LookupError as error:
        print(error.args[0])
        return 1
    if arguments != ["--check"]:
        DOCUMENT.write_text(text)
        return 0
    same = DOCUMENT.exists() and DOCUMENT.read_text() == text
    said = "says" if same else "does not say (`make settings` writes it)"
    print(f"docs/configuration.md {said} what the code says.")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
