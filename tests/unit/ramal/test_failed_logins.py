"""Failed log-ins of a user, as they are told to whoever asks why a phone does not register."""

from io import StringIO

from rich.console import Console

from console.logins import Failures, gathered
from events.audit import AuthenticationFailed
from ramal.logins import show

WRONG = AuthenticationFailed("ana@a.test", "ana@a.test", "192.0.2.4", "wrong response")
OTHER = AuthenticationFailed("ana@a.test", "boss@a.test", "192.0.2.9", "not this user's AOR")


def text_of(found: list[Failures]) -> str:
    console = Console(file=StringIO(), width=200)
    show(console, "ana@a.test", found)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_same_failure_is_one_line_and_the_latest_comes_first() -> None:
    found = gathered([(1000, WRONG), (5000, OTHER), (3000, WRONG), (2000, WRONG)])

    assert found == [
        Failures("ana@a.test", "boss@a.test", "192.0.2.9", "not this user's AOR", 1, 5000),
        Failures("ana@a.test", "ana@a.test", "192.0.2.4", "wrong response", 3, 3000),
    ]


def test_each_reason_is_told_in_words_that_say_what_to_do() -> None:
    said = text_of(gathered([(1000, WRONG), (2000, WRONG), (5000, OTHER)]))

    assert "2 times" in said
    assert "wrong password" in said
    assert "ana@a.test for boss@a.test" in said


def test_a_reason_that_only_a_newer_authsvc_knows_is_told_as_it_stands() -> None:
    assert "new reason" in text_of([Failures("ana@a.test", "ana@a.test", "192.0.2.4", "new reason", 1, 0)])


def test_no_failure_says_where_else_to_look() -> None:
    assert "a domain that is not served" in text_of([])
