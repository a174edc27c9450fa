"""HA1s of enrolments complete what a source says of a user, and make nobody a user (A23, R42)."""

import asyncio
from collections.abc import Collection

from authsvc.config import AuthSettings
from authsvc.decider import Unknown
from authsvc.users.directory import Users
from authsvc.users.ha1 import User, from_password
from authsvc.users.remembered import Key
from runtime.config import Domain
from runtime.errors import Unavailable

REALM = "example.test"
ALICE = ("alice", REALM)
HA1S = from_password(*ALICE, "secret")


class Fake:
    """Answers as it is told; None: it is away."""

    name = "fake"

    def __init__(self, known: dict[Key, User] | None) -> None:
        self.known = known
        self.asked: list[Key] = []

    @property
    def away(self) -> bool:
        return self.known is None

    async def find(self, keys: Collection[Key]) -> dict[Key, User]:
        self.asked += keys
        if self.known is None:
            raise Unavailable("away")
        return {key: self.known[key] for key in keys if key in self.known}

    async def in_use(self, keys: Collection[Key]) -> Collection[Key]:
        return [key for key in keys if key in (self.known or ())]


async def looked_up(directory: Fake, enrolled: Fake) -> tuple[Users, User | Unknown | None]:
    users = Users(AuthSettings(), {REALM: Domain()}, None, [directory], enrolled=enrolled)
    ended = asyncio.Event()
    users.found = lambda _: ended.set()
    users.ask_user(ALICE)
    await ended.wait()
    await users.stop()
    return users, users.user(ALICE)


async def test_a23_a_user_without_ha1s_in_the_directory_has_those_of_the_enrolment() -> None:
    _, found = await looked_up(Fake({ALICE: User()}), Fake({ALICE: HA1S}))
    assert found == HA1S


async def test_r42_whom_the_directory_does_not_have_is_no_user_however_often_he_enrolled() -> None:
    enrolled = Fake({ALICE: HA1S})
    _, found = await looked_up(Fake({}), enrolled)
    assert (found, enrolled.asked) == (None, [])


async def test_a18_while_the_directory_is_away_who_has_enrolled_goes_on() -> None:
    _, found = await looked_up(Fake(None), Fake({ALICE: HA1S}))
    assert found == HA1S
    _, found = await looked_up(Fake(None), Fake({}))
    assert found is Unknown.AWAY


async def test_a18_while_the_enrolments_are_away_nobody_without_ha1s_is_wrong() -> None:
    _, found = await looked_up(Fake({ALICE: User()}), Fake(None))
    assert found is Unknown.AWAY
    _, found = await looked_up(Fake({ALICE: HA1S}), Fake(None))
    assert found == HA1S


async def test_whoever_has_all_ha1s_elsewhere_is_not_looked_for_there() -> None:
    enrolled = Fake({})
    await looked_up(Fake({ALICE: HA1S}), enrolled)
    assert enrolled.asked == []


async def test_a23_who_is_forgotten_is_looked_up_again() -> None:
    directory, enrolled = Fake({ALICE: User()}), Fake({})
    users, found = await looked_up(directory, enrolled)
    assert found == User()
    users.forget([ALICE])
    assert users.user(ALICE) is Unknown.UNASKED
