"""What the documents name is there: links, anchors, and the tests that keep what docs/conformance.md claims."""

import re
import runpy
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from events.catalog import CHANNELS
from events.topics import DAY, HOUR, TOPICS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/*.md", "docs/pt/*.md", "docs/events/*.md", "tests/README.md", "tests/*/README.md")
    for path in sorted(ROOT.glob(pattern))
]
_COMMANDS = "\n".join(path.read_text() for path in sorted((ROOT / "ramal").glob("cli*.py")))
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:href|src|srcset)=\"([^\"]+)\"")
_KEPT = re.compile(r"\[(test_\w+\.py)\]\(([^)]+)\)((?:,? ?(?:[A-Z]\d\d|`\w+`))*)")
"""A test's file, the link, and what it is said to hold: lines of the checklist, or tests by name."""
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


@pytest.mark.parametrize(("name", "least"), [("conformance.md", 100), ("security.md", 40), ("pt/seguranca.md", 40)])
def test_every_test_that_a_document_names_is_there_and_bears_what_is_said(name: str, least: int) -> None:
    document = ROOT / "docs" / name
    named = 0
    for file, link, words in _KEPT.findall(document.read_text()):
        path = (document.parent / link).resolve()
        assert path.name == file
        assert path.is_relative_to(ROOT / "tests"), link
        text = path.read_text()
        for number in re.findall(r"\b[A-Z]\d\d\b", words):
            named += 1
            assert re.search(rf"\b{number}\b|def test_(?:[a-z]\d\d_)*{number.lower()}_", text), f"{number} in {file}"
        for test in re.findall(r"`(\w+)`", words):
            named += 1
            assert f"def {test}(" in text, f"{test} in {file}"
    assert named > least


def test_conformance_says_of_every_line_what_keeps_it_or_that_it_is_not_done() -> None:
    """A row without a test says that nothing is done, and nothing else."""
    lines = (ROOT / "docs" / "conformance.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith(("| section", "| RFC |"))]
    assert len(rows) > 50
    for row in rows:
        assert "](../tests/" in row.rstrip(" |").rpartition("|")[2] or "**Not done" in row, row


@pytest.mark.parametrize("document", ["operating.md", "pt/operacao.md"])
def test_the_table_of_topics_is_the_catalog(document: str) -> None:
    rows = re.findall(
        r"^\| `([a-z.-]+)` \| (`RAMAL_PARTITIONS`|1) \| (.*) \|$", (ROOT / "docs" / document).read_text(), re.MULTILINE
    )
    assert [(name, count == "1") for name, count, _ in rows] == [(t.name, t.partitions == 1) for t in TOPICS]
    for (_, _, kept), topic in zip(rows, TOPICS, strict=True):
        amount, unit = (
            (topic.retention_ms // DAY, "d") if topic.retention_ms > DAY else (topic.retention_ms // HOUR, "h")
        )
        assert topic.compacted or kept.startswith((f"{amount} {unit}", f"{topic.retention_ms // 60_000} min"))
        assert topic.compacted == kept.startswith("compact")


PORTUGUESE = sorted((ROOT / "docs" / "pt").glob("*.md"))


@pytest.mark.parametrize("document", PORTUGUESE, ids=lambda document: document.name)
def test_the_portuguese_documents_have_one_word_for_one_thing(document: Path) -> None:
    """A start is an `início`, an edge an `edge` (*o edge*), a binding a `binding`; a phone *receives* an answer."""
    text = re.sub(r"^Palavras que ficam em inglês.*$", "", document.read_text(), flags=re.MULTILINE)
    other = (
        r"partidas?|bordas?|associaç(?:ão|ões)|jamais|apelidos?|instantâneos?|requisiç(?:ão|ões)|ouv(?:ir|e|em|iu|iram)"
    )
    assert re.findall(rf"\b(?:{other})\b", text, re.IGNORECASE) == []
    feminine = r"\b(?:a|as|uma|umas|da|das|na|nas|pela|pelas|à|às|outra|outras|nova|terceira|nenhuma|essa|esta)"
    assert re.findall(rf"{feminine} \*?(?:edges?|bindings?|AORs?)\b", text, re.IGNORECASE) == []


_NAMES = re.compile(
    r"RAMAL_[A-Z0-9_]*[A-Z0-9]|\bramal_[a-z0-9_]+|(?<![\w-])--[a-z][a-z-]+|`[a-z]+(?:[_-][a-z]+)+`|`[a-z]+[A-Z][A-Za-z]*`"
)
"""Settings, metrics, options, and words of code: the same in every language."""


@pytest.mark.parametrize("document", PORTUGUESE, ids=lambda document: document.name)
def test_a_portuguese_document_names_whatever_its_english_one_does(document: Path) -> None:
    english = [
        path for path in DOCUMENTS if path.parent != document.parent and f"(pt/{document.name})" in path.read_text()
    ]
    path = ROOT / "README.md" if document.name == "README.md" else english[0]

    assert sorted(set(_NAMES.findall(path.read_text())) - set(_NAMES.findall(document.read_text()))) == []


DENIED = re.compile(
    r"[^.|]*\b(?:not built yet|not served yet|is planned|ainda não é atendid|ainda não são atendid)[^.|]*",
    re.IGNORECASE,
)
BUILT = {
    "calls": "class Proxy", "chamadas": "class Proxy", "TLS": "class Certificates", "erasure": "PersonForgotten",
    "Faust": "import faust", "OpenTelemetry": "opentelemetry.proto", "enrolment": "class Enrol",
    "--workers": '"--workers"',
}  # fmt: skip
"""By what a document may call it, what stands in the code once it is there."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_no_document_denies_what_is_there(document: Path) -> None:
    packages = ("edge", "authsvc", "registrar", "locator", "cdr", "runtime", "events", "ramal")
    code = "".join(path.read_text() for package in packages for path in (ROOT / package).rglob("*.py"))
    denied = " ".join(DENIED.findall(document.read_text()))
    assert [name for name, built in BUILT.items() if name in denied and built in code] == []


def test_data_of_a_package_lies_in_a_package_that_is_installed() -> None:
    """Else setuptools warns at each installation, and will leave the files out one day."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    excluded = tool["packages"]["find"]["exclude"]
    for package, patterns in tool["package-data"].items():
        assert not any("/" in pattern for pattern in patterns), "a folder is a package of its own"
        assert not any(fnmatch(package, each) for each in excluded)
        assert package == "*" or list((ROOT / package.replace(".", "/")).glob(patterns[0]))


def test_every_command_beside_the_peers_is_there() -> None:
    """The last column of the README's comparison: what shows that a line is so."""
    rows = re.findall(r"^\| .* \| (?:.*\|)* `([^`]+)` \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) > 10
    for command in rows:
        program, *words = command.split()
        if program == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        elif program == "ramal":
            assert re.search(rf'^@\w+\.command\("{words[0]}"', _COMMANDS, re.MULTILINE), command
        else:
            path, number = ROOT / words[2], words[4]
            assert re.search(rf"def test_(?:[a-z]\d\d_)*{number}_", path.read_text()), command


def test_the_pictures_are_one_picture_in_two_languages() -> None:
    """Only words differ; both know light and dark."""
    english, portuguese = (ROOT / "docs" / name for name in ("picture.svg", "pt/desenho.svg"))
    drawn = [
        re.sub(r">[^<>]*<|xml:lang=\"[^\"]*\"|font-size=\"[^\"]*\"|\s", "", path.read_text())
        for path in (english, portuguese)
    ]
    assert drawn[0] == drawn[1]
    assert "prefers-color-scheme: dark" in english.read_text()
    assert english.read_text() != portuguese.read_text()


def test_the_sizes_are_what_the_unit_costs_come_to() -> None:
    """docs/sizing.md has what `bench/sizing.py` prints."""
    sizing = runpy.run_path(str(ROOT / "bench" / "sizing.py"))
    assert sizing["table"](sizing["PHONES"], 150.0, 1.0) in (ROOT / "docs" / "sizing.md").read_text()


def test_every_metric_that_a_document_names_exists() -> None:
    """Whatever the page; what changes of names the changelog tells, it must name the old ones."""
    packages = ("edge", "authsvc", "registrar", "locator", "cdr", "runtime", "console")
    code = "".join(path.read_text() for package in packages for path in (ROOT / package).rglob("*.py"))
    made = {name.removesuffix("_total") for name in re.findall(r'"(ramal_\w+)"', code)}
    for document in DOCUMENTS:
        if document.name != "CHANGELOG.md":
            named = {name.removesuffix("_total") for name in re.findall(r"`(ramal_[a-z_]+)", document.read_text())}
            assert named <= made, document.name


@pytest.mark.parametrize("document", ["operating.md", "pt/operacao.md"])
def test_who_reads_and_writes_which_topic_is_what_the_catalog_says(document: str) -> None:
    rows = re.findall(
        r"^\| (edge|authsvc|registrar|locator|cdr|analytics) \| (.*?) \| (.*?) \| Kafka.* \|$",
        (ROOT / "docs" / document).read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 6
    for service, read, written in rows:
        for cell, named in ((read, "readers"), (written, "writers")):
            said = set(re.findall(r"`([a-z.]+)`", cell)) & CHANNELS.keys()
            assert said == {topic for topic, channel in CHANNELS.items() if service in getattr(channel, named)}, service


@pytest.mark.parametrize("page", ["docs/operating.md", "docs/pt/operacao.md"])
def test_large_tables_are_narrowed_by_hand_as_small_ones_are_by_the_migration(page: str) -> None:
    migration = (ROOT / "runtime/database/schema/mysql/009_narrow_rows.sql").read_text().replace("''", "'")
    [block] = re.findall(
        r"^```sql\n(ALTER TABLE location.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL
    )

    for statement in block.split(";")[:-1]:
        assert " ".join(statement.split()) in " ".join(migration.split())
