"""`ramal import`: the URL of their database, and what is said of aliases."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from ramal.directory import DATABASE
from ramal.importing.source import Source, settings
from ramal.importing.tables import Ours, accounts, aliases
from ramal.system import system_at
from runtime.config import Sources
from runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://kam:s3cret@[::1/kamailio", "its host or port cannot be read"),
        ("mysql://kam:s3cret/x@h/d", "its host or port cannot be read"),
        ("mysql://kam:s3cret#x@h/d", "its host or port cannot be read"),
        ("mysql://kam:s3cret@h:99999/d", "its host or port cannot be read"),
        ("mysql://kam:s3cret@h\u2100/d", "its host or port cannot be read"),
        ("mysql://kam:s3cret@h", "it is not like mysql://user@host"),
        ("mysql://kam:s3cret@h/d?tls=perhaps", "--mysql: tls: "),
        ("mysql://kam:s3cret@h/d?ca_file=x", "--mysql: ca_file: is of no use without tls=true"),
        ("mysql://kam:s3cret@h/d?what=x", "there is no option what"),
    ],
)
def test_a_url_that_is_none_is_told_in_what_was_typed_and_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ConfigError) as told:
        settings(url, None)
    assert str(told.value).startswith("--mysql: ")
    assert says in str(told.value)
    assert "s3cret" not in str(told.value)
    assert "RAMAL_MYSQL" not in str(told.value)


class Theirs:
    """Rows of an open Source, in one chunk a table."""

    def __init__(self, **rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    async def chunks(self, table: str) -> AsyncIterator[list[dict[str, Any]]]:
        yield self._rows[table]


@pytest.mark.parametrize("write", [True, False], ids=["import", "dry run"])
@pytest.mark.parametrize(
    ("directory", "says"),
    [
        (False, "its user is none here: calls to it reach nobody"),
        (True, "its user is in no table here: calls to it reach him if LDAP has him"),
    ],
)
async def test_an_alias_of_nobody_is_taken_with_a_doubt_and_a_users_own_name_is_left_out(
    tmp_path: Path, write: bool, directory: bool, says: str
) -> None:
    users = [{"username": "alice", "domain": "example.test", "password": "x"}]
    called = [
        {"alias_username": alias, "alias_domain": "", "username": user, "domain": "example.test"}
        for alias, user in (("desk", "alice"), ("door", "carol"), ("hall", "ghost"), ("alice", "carol"), ("carol", "x"))
    ]
    (tmp_path / DATABASE).touch()
    system = system_at(tmp_path, Sources.read({"RAMAL_DOMAIN": "example.test"}))
    theirs = cast("Source", Theirs(subscriber=users, dbaliases=called))
    async with system.tables() as tables:
        await tables.migrate()
        ours = Ours(tables, "example.test", {"example.test"}, write, {("carol", "example.test")}, directory)
        await accounts(theirs, ours, lambda _: None)
        counted = await aliases(theirs, ours, lambda _: None)
        there = await tables.query("SELECT COUNT(*) FROM dbaliases")
    assert (counted.new, there) == (3, [(3 if write else 0,)])
    [(why, doubt)] = counted.doubts.items()
    assert why == says
    assert doubt.examples == ["hall@example.test"]
    [(left, reason)] = counted.reasons.items()
    assert left == "a user has that name: calls to it ring there"
    assert reason.examples == ["alice@example.test", "carol@example.test"]
