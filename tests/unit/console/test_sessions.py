"""Sessions of operators: each has an end, and their number a bound."""

from console.sessions import CAPACITY, IDLE, LONGEST, Sessions

AT = 1_700_000_000_000


def test_a_session_is_found_by_its_token_alone() -> None:
    sessions = Sessions()
    begun = sessions.begin("token", "csrf", "maria", "proof", AT)

    assert sessions.of("token", AT + 1) == begun._replace(used=AT + 1)
    assert sessions.of("Token", AT + 1) is None
    assert sessions.of("", AT + 1) is None


def test_a_session_ends_when_nobody_uses_it() -> None:
    sessions = Sessions()
    sessions.begin("token", "csrf", "maria", "proof", AT)

    assert sessions.of("token", AT + IDLE - 1)
    assert sessions.of("token", AT + 2 * IDLE - 2)
    assert sessions.of("token", AT + 3 * IDLE - 2) is None
    assert sessions.of("token", AT + 3 * IDLE - 2) is None
    assert len(sessions) == 0


def test_a_session_ends_however_often_it_is_used() -> None:
    sessions = Sessions()
    sessions.begin("token", "csrf", "maria", "proof", AT)

    assert all(sessions.of("token", at) for at in range(AT, AT + LONGEST, IDLE // 2))
    assert sessions.of("token", AT + LONGEST) is None


def test_a_session_that_was_ended_is_nobodys() -> None:
    sessions = Sessions()
    sessions.begin("token", "csrf", "maria", "proof", AT)
    sessions.end("token")
    sessions.end("token")

    assert sessions.of("token", AT) is None


def test_without_room_the_session_goes_that_was_used_longest_ago() -> None:
    sessions = Sessions()
    for number in range(CAPACITY):
        sessions.begin(str(number), "csrf", "maria", "proof", AT + number)
    assert sessions.of("0", AT + CAPACITY)
    sessions.begin("new", "csrf", "maria", "proof", AT + CAPACITY)

    assert len(sessions) == CAPACITY
    assert sessions.of("1", AT + CAPACITY) is None
    assert sessions.of("0", AT + CAPACITY)
