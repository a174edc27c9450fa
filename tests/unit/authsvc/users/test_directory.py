"""authsvc.users.directory: sources in order, batches, what is remembered and for how long."""

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from authsvc.config import AuthSettings
from authsvc.decider import Owner, Unknown
from authsvc.users.batches import LARGEST
from authsvc.users.directory import Users
from authsvc.users.file import UsersFile, add_user
from authsvc.users.ha1 import User
from authsvc.users.remembered import AWAY_SECONDS, Key
from runtime.config import Domain
from runtime.errors import Unavailable

REALM = "example.test"
ALICE = ("alice", REALM)
SETTINGS = AuthSettings(cache_seconds=300, unknown_seconds=15, stale_seconds=3600)


class Clock:
    """Monotonic seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Known:
    """A source that knows some users, and can be away or made to wait."""

    name = "known"

    def __init__(
        self,
        users: dict[Key, User] | None = None,
        aliases: dict[Key, Key] | None = None,
        numbers: dict[Key, Key] | None = None,
    ) -> None:
        self.users = users or {}
        self.aliases = aliases or {}
        self.numbers = numbers or {}
        self.away = False
        self.asked: list[list[Key]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def find(self, keys: Collection[Key]) -> dict[Key, User]:
        self.asked.append(list(keys))
        self.begun.set()
        await self.gate.wait()
        if self.away:
            raise Unavailable
        return {key: self.users[key] for key in keys if key in self.users}

    async def find_aliases(self, keys: Collection[Key]) -> dict[Key, Key]:
        self.asked.append(list(keys))
        if self.away:
            raise Unavailable
        return {key: self.aliases[key] for key in keys if key in self.aliases}

    async def find_numbers(self, keys: Collection[Key]) -> dict[Key, Key]:
        if self.away:
            raise Unavailable
        return {key: self.numbers[key] for key in keys if key in self.numbers}


def md5(letter: str) -> User:
    return User(md5=letter * 32)


class Fixture:
    """Users over some sources, and the reports of ended look-ups."""

    def __init__(
        self,
        *sources: Known,
        file: UsersFile | None = None,
        algorithms: tuple[str, ...] = ("MD5",),
        settings: AuthSettings = SETTINGS,
    ) -> None:
        self.clock = Clock()
        domains = {REALM: Domain(algorithms=algorithms, country="55", area="48")}
        first = sources[0] if sources else None
        self.users = Users(settings, domains, file, sources, first, first, clock=self.clock)
        self.users.found = self._ended
        self._waiting: dict[Key, asyncio.Event] = {}
        self.users.tick()

    def _ended(self, keys: Collection[Key]) -> None:
        for key in keys:
            self._waiting.setdefault(key, asyncio.Event()).set()

    async def look_up(self, key: Key = ALICE) -> User | Unknown | None:
        """The user, looked up where that is needed."""
        self.users.tick()
        if self.users.user(key) is Unknown.UNASKED:
            self._waiting[key] = asyncio.Event()
            assert self.users.ask_user(key)
            await self._waiting[key].wait()
            self.users.tick()
        return self.users.user(key)

    async def owner(self, key: Key) -> Owner | Unknown:
        """The owner, looked up where that is needed."""
        self.users.tick()
        while (owner := self.users.owner(key)) is Unknown.UNASKED:
            self._waiting[key] = asyncio.Event()
            assert self.users.ask_called(key)
            await self._waiting[key].wait()
            self.users.tick()
        return owner

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.users.tick()


async def test_a_user_is_asked_for_once_and_then_remembered_for_a_while() -> None:
    source = Known({ALICE: md5("a")})
    fixture = Fixture(source)
    assert await fixture.look_up() == md5("a")
    fixture.pass_time(299)
    assert await fixture.look_up() == md5("a")
    assert len(source.asked) == 1
    source.users[ALICE] = md5("b")
    fixture.pass_time(2)
    assert await fixture.look_up() == md5("b")


async def test_a_name_that_no_source_knows_is_remembered_as_unknown_for_a_shorter_while() -> None:
    source = Known()
    fixture = Fixture(source)
    assert await fixture.look_up() is None
    assert await fixture.look_up() is None
    assert len(source.asked) == 1
    source.users[ALICE] = md5("a")
    fixture.pass_time(16)
    assert await fixture.look_up() == md5("a")


async def test_a_later_source_is_asked_only_for_what_earlier_ones_lack() -> None:
    first, second = Known({ALICE: md5("a")}), Known({ALICE: User(md5="b" * 32, sha256="c" * 64)})
    assert await Fixture(first, second).look_up() == md5("a")
    assert second.asked == []
    both = Fixture(first, second, algorithms=("SHA-256", "MD5"))
    assert await both.look_up() == User(md5="a" * 32, sha256="c" * 64)


async def test_a18_a_user_whom_an_earlier_source_has_goes_on_while_a_later_one_is_away() -> None:
    first, second = Known({ALICE: md5("a")}), Known()
    second.away = True
    assert await Fixture(first, second).look_up() == md5("a")
    assert await Fixture(first, second, algorithms=("SHA-256", "MD5")).look_up() == md5("a")


async def test_a18_while_a_source_is_away_remembered_users_go_on_and_others_are_unknowable_not_unknown() -> None:
    source = Known({ALICE: md5("a")})
    fixture = Fixture(source)
    await fixture.look_up()
    source.away = True
    fixture.pass_time(301)
    assert await fixture.look_up() == md5("a")
    assert len(source.asked) == 1
    assert await fixture.look_up(("bob", REALM)) is Unknown.AWAY
    fixture.pass_time(3600)
    assert await fixture.look_up() is Unknown.AWAY
    source.away = False
    fixture.pass_time(AWAY_SECONDS)
    assert await fixture.look_up() == md5("a")


async def test_a22_look_ups_gather_and_a_slow_batch_has_only_one_beside_it() -> None:
    source = Known()
    source.gate.clear()
    fixture = Fixture(source)
    waiting = []
    for number in range(3 * LARGEST):
        waiting.append(asyncio.create_task(fixture.look_up((f"u{number}", REALM))))
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        while len(source.asked) < 2:  # noqa: ASYNC110  # the source under test has no event for it
            await asyncio.sleep(0.01)
    source.gate.set()
    await asyncio.gather(*waiting)
    assert 4 <= len(source.asked) <= 5
    assert len(source.asked[0]) < len(source.asked[1]) == LARGEST
    assert max(len(keys) for keys in source.asked) <= LARGEST
    assert sum(len(keys) for keys in source.asked) == 3 * LARGEST


async def test_what_is_remembered_is_bounded_and_the_longest_unasked_goes_first() -> None:
    source = Known({(f"u{n}", REALM): md5("a") for n in range(6)})
    fixture = Fixture(source, settings=AuthSettings(cached_users=4))
    for number in range(6):
        await fixture.look_up((f"u{number}", REALM))
    assert fixture.users.user(("u5", REALM)) == md5("a")
    assert fixture.users.user(("u0", REALM)) is Unknown.UNASKED


async def test_look_ups_that_wait_are_bounded() -> None:
    source = Known()
    source.gate.clear()
    fixture = Fixture(source, settings=AuthSettings(parked=3))
    assert [fixture.users.ask_user((f"u{n}", REALM)) for n in range(5)] == [True, True, True, False, False]
    assert fixture.users.ask_user(("u1", REALM))
    await fixture.users.stop()


async def test_a19_names_that_fit_no_column_or_are_not_text_are_nobodys_and_nobody_is_asked() -> None:
    source = Known()
    fixture = Fixture(source)
    for name in ("x" * 65, "", "nul\x00", "line\nbreak", "bad\udcff"):
        assert await fixture.look_up((name, REALM)) is None
    assert source.asked == []


async def test_the_users_file_comes_first_and_its_changes_count(tmp_path: Path) -> None:
    path = tmp_path / "users"
    source = Known({ALICE: md5("a")})
    fixture = Fixture(source, file=UsersFile(path))
    assert await fixture.look_up() == md5("a")
    add_user(path, *ALICE, "secret")
    fixture.pass_time(1)
    known = await fixture.look_up()
    assert isinstance(known, User)
    assert known.has_all(("MD5", "SHA-256", "SHA-512-256"))


async def test_without_a_source_a_user_who_is_not_in_the_file_is_unknown_at_once(tmp_path: Path) -> None:
    fixture = Fixture(file=UsersFile(tmp_path / "users"))
    assert fixture.users.user(ALICE) is None
    assert fixture.users.owner(ALICE) == Owner(None, exists=False)


async def test_a27_an_owner_is_the_aliass_user_or_the_user_of_that_name() -> None:
    source = Known({ALICE: md5("a")}, {("reception", REALM): ALICE})
    fixture = Fixture(source)
    assert await fixture.owner(("reception", REALM)) == Owner(f"alice@{REALM}", exists=True)
    assert await fixture.owner(ALICE) == Owner(None, exists=True)
    assert await fixture.owner(("nobody", REALM)) == Owner(None, exists=False)
    source.away = True
    assert await fixture.owner(("other", REALM)) is Unknown.AWAY


async def test_a_look_up_with_a_bug_is_logged_and_the_next_one_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    source = Known()
    fixture = Fixture(source)
    source.gate.clear()
    source.users = None  # type: ignore[assignment]  # makes the source raise what it should not
    fixture.users.ask_user(("bob", REALM))
    await source.begun.wait()
    source.gate.set()
    await asyncio.sleep(0)
    source.users = {ALICE: md5("a")}
    assert await fixture.look_up() == md5("a")
    assert "a look-up failed" in caplog.text
