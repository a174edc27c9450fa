"""What `/status` says: each thing that a service needs, and why it is away; in JSON and in words."""

from runtime.http import described, in_words

STATUS = {"edge": {"log": "", "database": "the database is away: gone"}, "authsvc": {"log": ""}}


def test_status_says_of_each_thing_that_a_service_needs_whether_it_is_there() -> None:
    said = described([], STATUS, draining=False)

    assert said == {
        "ready": True,
        "draining": False,
        "reasons": ["edge: the database is away: gone"],
        "services": {
            "edge": {
                "log": {"ok": True, "reason": ""},
                "database": {"ok": False, "reason": "the database is away: gone"},
            },
            "authsvc": {"log": {"ok": True, "reason": ""}},
        },
    }


def test_a_reason_is_told_once() -> None:
    why = "edge: the database is away: gone"
    assert described([why], STATUS, draining=False)["reasons"] == [why]
    assert described(["starting"], {}, draining=False) == {
        "ready": False,
        "draining": False,
        "reasons": ["starting"],
        "services": {},
    }


def test_in_words_each_need_has_a_line() -> None:
    assert in_words(described([], STATUS, draining=True)).splitlines() == [
        "ready, draining",
        "edge log: ok",
        "edge database: the database is away: gone",
        "authsvc log: ok",
    ]
    assert in_words(described(["starting"], {}, draining=False)).splitlines() == ["not ready", "starting"]
    other = "edge: another edge runs under the same name"
    assert in_words(described([other], STATUS, draining=False)).splitlines()[-1] == other
