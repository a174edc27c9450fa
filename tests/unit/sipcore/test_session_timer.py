"""Session timers on messages alone (RFC 4028 section 8; CHECKLIST Y29)."""

import pytest

from sipcore import session_timer
from sipcore.message import Request, Response, row


def request(*rows: tuple[str, str], method: str = "INVITE") -> Request:
    fixed = [("via", "SIP/2.0/UDP a;branch=z9hG4bK1"), ("cseq", f"1 {method}")]
    return Request(method, "sip:b@b", [row(name, value) for name, value in (*fixed, *rows)])


TIMER = ("supported", "100rel, Timer")


@pytest.mark.parametrize(
    ("rows", "too_short"),
    [
        ([TIMER, ("session-expires", "89")], True),
        ([TIMER, ("session-expires", "0;refresher=uac")], True),
        ([TIMER, ("session-expires", "90")], False),
        ([TIMER, ("session-expires", "9" * 5000)], False),
        ([TIMER, ("session-expires", "soon")], False),
        ([TIMER], False),
        ([("session-expires", "89")], False),
        ([("supported", "timers"), ("session-expires", "89")], False),
    ],
)
def test_y29_only_who_knows_timers_is_refused_for_one(rows: list[tuple[str, str]], too_short: bool) -> None:
    assert session_timer.is_too_short(request(*rows), 90) == too_short
    assert not session_timer.is_too_short(request(*rows, method="SUBSCRIBE"), 90)


@pytest.mark.parametrize(
    ("rows", "session", "least"),
    [
        # A client without timers: Min-SE is raised, and Session-Expires to it.
        ([("session-expires", "60;refresher=uas;x")], "120;refresher=uas;x", "120"),
        ([("session-expires", "60"), ("min-se", "30")], "120", "120"),
        ([("session-expires", "60"), ("min-se", "500")], "500", "500"),
        ([("session-expires", "120")], "120", None),
        ([("session-expires", "1800"), ("min-se", "30")], "1800", "30"),
        ([("session-expires", "1800"), ("min-se", "2000")], "2000", "2000"),
        # One with timers: its Min-SE stays as it is, and its Session-Expires is never below it.
        ([TIMER, ("session-expires", "1800")], "1800", None),
        ([TIMER, ("session-expires", "150"), ("min-se", "200;x")], "200", "200;x"),
        ([TIMER, ("session-expires", "150"), ("min-se", "90")], "150", "90"),
        # What nobody can read is nobody's to change.
        ([("session-expires", "soon")], "soon", None),
        ([("min-se", "10")], None, "10"),
        ([], None, None),
    ],
)
def test_y29_a_timer_goes_on_no_shorter_than_min_se_and_never_shortened(
    rows: list[tuple[str, str]], session: str | None, least: str | None
) -> None:
    received = request(*rows)
    sent = session_timer.prolonged(received, 120)
    assert (sent.first("session-expires"), sent.first("min-se")) == (session, least)
    other = [each for each in received.rows if each.name not in ("session-expires", "min-se")]
    assert [each for each in sent.rows if each.name not in ("session-expires", "min-se")] == other
    untouched = request(*rows, method="MESSAGE")
    assert session_timer.prolonged(untouched, 120) is untouched


@pytest.mark.parametrize(
    ("asked", "answer", "session", "required"),
    [
        ([TIMER, ("session-expires", "1800;refresher=uas")], [], "1800;refresher=uac", ["timer"]),
        (
            [TIMER, ("session-expires", "1800")],
            [("require", "100rel"), ("require", "x")],
            "1800;refresher=uac",
            ["100rel", "x", "timer"],
        ),
        ([TIMER, ("session-expires", "1800")], [("require", "TIMER")], "1800;refresher=uac", ["TIMER"]),
        (
            [TIMER, ("session-expires", "1800")],
            [("session-expires", "900;refresher=uas")],
            "900;refresher=uas",
            [],
        ),
        ([("session-expires", "1800")], [], None, []),
        ([TIMER], [], None, []),
        ([TIMER, ("session-expires", "soon")], [], None, []),
    ],
)
def test_y29_who_asked_for_a_timer_refreshes_where_nobody_below_does_timers(
    asked: list[tuple[str, str]], answer: list[tuple[str, str]], session: str | None, required: list[str]
) -> None:
    for status in (200, 202, 180, 486):
        response = Response(status, "R", [row(name, value) for name, value in answer], b"sdp")
        upward = session_timer.answered(response, request(*asked))
        if status >= 300 or status < 200:
            assert upward is response
            continue
        assert upward.first("session-expires") == session
        assert upward.values("require") == required
        assert (upward.status, upward.body) == (status, b"sdp")
        assert session_timer.answered(response, request(*asked, method="BYE")) is response
