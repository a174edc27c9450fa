"""The operators' pages over HTTP: who is let in, what a request must bring along, and what is answered."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from console.accounts import add, remove
from console.gate import COOKIE, FAILURES, FAILURES_OF_SOURCE, NOBODY
from console.health import KEPT_SECONDS
from console.live import OF_ONE
from console.service import build
from runtime.config import Sources
from runtime.database.port import Statement
from runtime.errors import ConfigError
from tests.kit.console_rows import HOUR, MINUTE, fill
from tests.kit.console_site import PASSWORDS, ConsoleSite

NOW = 1_900_000_000_000
"""Later than any clock here: nothing that is registered then has ended."""


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The lines of maria, an operator, and rui, who only looks."""
    path = tmp_path_factory.mktemp("operators") / "operators"
    add(path, "maria", "operator", PASSWORDS["maria"])
    add(path, "rui", "read-only", PASSWORDS["rui"])
    return path.read_text()


@pytest.fixture
async def site(tmp_path: Path, operators: str) -> AsyncIterator[ConsoleSite]:
    found = ConsoleSite(tmp_path)
    found.operators.write_text(operators)
    await found.start()
    yield found
    await found.stop()


# --- who is let in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "registrations",
        "registrations/count",
        "registration",
        "failures",
        "known-since",
        "calls",
        "call",
        "health",
        "statistics",
        "events",
        "operators",
    ],
)
async def test_who_is_not_logged_in_is_told_nothing(site: ConsoleSite, path: str) -> None:
    browser = site.browser()
    assert await browser.get(path) == (401, {"error": "logged_out", "seconds": 0, "detail": ""})
    browser.session.cookie_jar.update_cookies({COOKIE: "made-up"})
    assert (await browser.get(path))[0] == 401


async def test_an_operator_logs_in_and_out_again(site: ConsoleSite) -> None:
    browser = site.browser()
    status, said = await browser.log_in("maria")
    assert (status, said["name"], said["role"]) == (200, "maria", "operator")
    assert await browser.get("me") == (200, said)
    assert (await browser.post("log-out", {}))[0] == 200
    assert await browser.get("me") == (200, NOBODY)


async def test_the_cookie_is_seen_by_no_script_and_sent_from_no_other_site(site: ConsoleSite) -> None:
    browser = site.browser()
    body = {"name": "maria", "password": PASSWORDS["maria"]}
    async with browser.session.post(f"{site.base}api/log-in", json=body) as answer:
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/console/" in cookie
    assert "Secure" not in cookie


async def test_a_log_in_takes_no_session_over_and_ends_the_one_that_the_browser_had(site: ConsoleSite) -> None:
    """Session fixation: whoever planted a cookie does not know the one that a log-in makes."""
    browser, other = site.browser(), site.browser()
    for each in (browser, other):
        each.session.cookie_jar.update_cookies({COOKIE: "planted"}, URL(site.base))
    await browser.log_in("maria")
    assert (await browser.get("me"))[1]["name"] == "maria"
    assert await other.get("me") == (200, NOBODY)
    [before] = [cookie.value for cookie in browser.session.cookie_jar if cookie.key == COOKIE]
    await browser.log_in("rui")
    other.session.cookie_jar.update_cookies({COOKIE: before}, URL(site.base))
    assert await other.get("me") == (200, NOBODY)


async def test_an_operator_has_twenty_streams_and_others_have_theirs(site: ConsoleSite) -> None:
    maria, rui = site.browser(), site.browser()
    await maria.log_in("maria")
    await rui.log_in("rui")
    async with contextlib.AsyncExitStack() as streams:
        for _ in range(OF_ONE):
            stream = await streams.enter_async_context(maria.session.get(f"{site.base}api/events"))
            assert stream.status == 200
        assert (await maria.get("events"))[0] == 503
        stream = await streams.enter_async_context(rui.session.get(f"{site.base}api/events"))
        assert stream.status == 200


async def test_behind_tls_the_cookie_is_secure_and_only_its_origin_counts(tmp_path: Path, operators: str) -> None:
    site = ConsoleSite(tmp_path)
    site.operators.write_text(operators)
    await site.start(origin="https://console.example.test")
    browser = site.browser()
    body = {"name": "maria", "password": PASSWORDS["maria"]}
    ours, others = (
        {"Origin": "https://console.example.test"},
        {"Origin": site.base.rstrip("/").removesuffix("/console")},
    )
    async with browser.session.post(f"{site.base}api/log-in", json=body, headers=ours) as answer:
        assert answer.status == 200
        assert "Secure" in answer.headers["Set-Cookie"]
    async with browser.session.post(f"{site.base}api/log-in", json=body, headers=others) as answer:
        assert answer.status == 403
    async with browser.session.get(site.base) as page:
        assert page.headers["Strict-Transport-Security"]
    await site.stop()


async def test_wrong_passwords_are_refused_and_then_wait_whoever_is_named(site: ConsoleSite) -> None:
    browser = site.browser()
    answers = await asyncio.gather(*(browser.log_in("maria", "wrong") for _ in range(FAILURES + 3)))
    assert [status for status, _ in answers].count(401) == FAILURES
    assert [status for status, _ in answers].count(429) == 3
    status, said = await browser.log_in("maria")
    assert (status, said["error"]) == (429, "locked_out")
    assert 0 < said["seconds"] <= 60
    assert (await browser.log_in("rui"))[0] == 200  # another name waits for nobody


async def test_who_tries_one_name_after_another_waits_too(site: ConsoleSite) -> None:
    browser = site.browser()
    answers = [await browser.log_in(f"nobody{number}", "password1") for number in range(22)]
    assert [status for status, _ in answers] == [401] * 20 + [429] * 2


async def test_a_good_log_in_is_no_way_to_try_all_other_names(site: ConsoleSite) -> None:
    browser = site.browser()
    answers = []
    for number in range(22):
        answers.append((await browser.log_in(f"nobody{number}", "password1"))[0])
        if number % 5 == 4:
            answers.append((await browser.log_in("rui"))[0])
    assert answers.count(401) == 20
    assert answers[-3:] == [429, 429, 429]


async def test_good_log_ins_are_no_failures(site: ConsoleSite) -> None:
    assert {(await site.browser().log_in("rui"))[0] for _ in range(FAILURES_OF_SOURCE + 2)} == {200}


async def test_a_name_that_is_nobodys_is_not_logged_for_it_may_be_a_password(
    site: ConsoleSite, caplog: pytest.LogCaptureFixture
) -> None:
    await site.browser().log_in("hunter2", "password1")
    await site.browser().log_in("maria", "password1")
    failed = [record for record in caplog.records if "log-in failed" in record.getMessage()]
    assert [getattr(record, "operator", None) for record in failed] == ["", "maria"]


async def test_an_operator_who_is_taken_away_or_has_a_new_password_is_logged_out(site: ConsoleSite) -> None:
    maria, rui = site.browser(), site.browser()
    await maria.log_in("maria")
    await rui.log_in("rui")
    remove(site.operators, "rui")
    add(site.operators, "maria", "operator", "another password")
    assert await maria.get("me") == await rui.get("me") == (200, NOBODY)


async def test_without_operators_it_says_so(site: ConsoleSite) -> None:
    site.operators.unlink()
    assert await site.browser().log_in("maria") == (401, {"error": "no_operators", "seconds": 0, "detail": ""})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"name":"maria"}',
        b'{"name":1,"password":2}',
        b"\xff",
        b'{"name":"' + b"x" * 300 + b'","password":""}',
    ],
)
async def test_a_log_in_that_is_none_is_400(site: ConsoleSite, body: bytes) -> None:
    browser = site.browser()
    headers = {"Content-Type": "application/json"}
    async with browser.session.post(f"{site.base}api/log-in", data=body, headers=headers) as answer:
        assert answer.status == 400


# --- what changes something ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "made-up"},
        {"Origin": "https://elsewhere.test"},
        {"Origin": "null"},
        {"Host": "rebound.test:8080", "Origin": "http://rebound.test:8080"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
    ids=str,
)
async def test_a_request_that_did_not_come_from_our_page_changes_nothing(
    site: ConsoleSite, fields: dict[str, str]
) -> None:
    browser = site.browser()
    await browser.log_in("maria")
    for path in ("remove", "log-out"):
        status, said = await browser.post(path, {"aor": "alice"}, **fields)
        assert (status, said["error"]) == (403, "not_our_page")
    assert (await browser.get("me"))[1]["name"] == "maria"


async def test_who_may_only_look_removes_nobody(site: ConsoleSite) -> None:
    browser = site.browser()
    await browser.log_in("rui")
    status, said = await browser.post("remove", {"aor": "alice"})
    assert (status, said["error"]) == (403, "read_only")


@pytest.mark.parametrize(
    "body", [{}, {"aor": "not an aor"}, {"aor": "a", "contact": "x" * 2000}, {"aor": "a", "all": 1}]
)
async def test_a_removal_that_is_none_is_400(site: ConsoleSite, body: dict[str, Any]) -> None:
    browser = site.browser()
    await browser.log_in("maria")
    assert (await browser.post("remove", body))[0] == 400


# --- what is asked --------------------------------------------------------------------------------------------------


async def test_pages_follow_each_other_until_all_have_come_once(site: ConsoleSite) -> None:
    now = int(time.time() * 1000)
    fill(site.path, now, registrations=450, calls=0)
    browser = site.browser()
    await browser.log_in("rui")
    assert (await browser.get("registrations", at=str(now - 2 * HOUR)))[1]["rows"] == []
    assert (await browser.get("known-since"))[1] == {"since": now - HOUR}
    for query in ({}, {"at": str(now - MINUTE)}):
        seen, after, pages = [], "", 0
        while after is not None:
            status, said = await browser.get("registrations", after=after, **query)
            assert status == 200
            seen += [row["aor"] for row in said["rows"]]
            after, pages = said["after"], pages + 1
        assert (len(seen), pages) == (450, 3)
        assert seen == sorted(set(seen))
    assert await browser.get("registrations/count") == (200, {"total": 450})


async def test_a_search_finds_users_by_their_beginning_and_anything_anywhere(site: ConsoleSite) -> None:
    fill(site.path, NOW, registrations=300, calls=0)
    browser = site.browser()
    await browser.log_in("rui")
    _, begins = await browser.get("registrations", search="user00029")
    assert [row["aor"] for row in begins["rows"]] == [f"user00029{number}@example.test" for number in range(10)]
    _, one = await browser.get("registrations", search="user000007@exam")
    assert [(row["aor"], row["from"], row["edge"]) for row in one["rows"]] == [
        ("user000007@example.test", "udp 10.0.0.7:5060", "edge-2")
    ]
    assert await browser.get("registrations/count", **{"search": "10.0.1.", "in": "all"}) == (200, {"total": 44})
    assert (await browser.get("registrations", search="%"))[1]["rows"] == []


async def test_one_aor_has_its_bindings_and_its_history(site: ConsoleSite) -> None:
    fill(site.path, NOW, registrations=3, calls=0)
    ended = (
        "UPDATE registration_history SET until_ms = %s, ended = 'expired', ended_by = '' WHERE username = 'user000001'"
    )
    await site.database.transact([Statement(ended, [NOW])])
    browser = site.browser()
    await browser.log_in("rui")
    _, found = await browser.get("registration", aor="user000001")
    assert [each["contact"] for each in found["bindings"]] == ["sip:user000001@10.0.0.1:5060"]
    assert [(each["until"], each["ended"]) for each in found["history"]] == [(NOW, "expired")]
    assert (await browser.get("registration", aor="nobody"))[1]["history"] == []


@pytest.mark.parametrize(
    ("path", "query", "wrong"),
    [
        ("registrations", {"at": "yesterday"}, "at"),
        ("registrations", {"at": "9" * 15}, "at"),
        ("registrations", {"after": "[1]"}, "after"),
        ("registrations", {"search": "a\x00"}, "search"),
        ("registration", {"aor": "a b@c"}, "aor"),
        ("registration", {}, "aor"),
    ],
    ids=str,
)
async def test_a_question_that_is_none_is_400_and_names_what_is_wrong(
    site: ConsoleSite, path: str, query: dict[str, str], wrong: str
) -> None:
    browser = site.browser()
    await browser.log_in("rui")
    assert await browser.get(path, **query) == (400, {"error": "bad_parameter", "seconds": 0, "detail": wrong})


async def test_health_is_told_while_the_tables_are_away_and_so_is_that(site: ConsoleSite) -> None:
    browser = site.browser()
    await browser.log_in("rui")
    assert (await browser.get("health"))[1]["away"] == ""
    await site.database.stop()
    await asyncio.sleep(KEPT_SECONDS)
    status, said = await browser.get("health")
    assert (status, said["projections"]) == (200, [])
    assert said["away"]
    assert [each["name"] for each in said["processes"]] == ["here"]


async def test_tables_that_are_away_are_said_to_be(site: ConsoleSite) -> None:
    browser = site.browser()
    await browser.log_in("rui")
    await site.database.stop()
    status, said = await browser.get("registrations")
    assert (status, said["error"]) == (503, "away")


async def test_news_are_told_to_who_listens_until_he_is_logged_out(site: ConsoleSite) -> None:
    browser = site.browser()
    await browser.log_in("rui")
    insert = (
        "INSERT INTO projection_offset (projection, partition_no, next_offset, claim) VALUES ('location', 0, %s, 0)"
    )
    await site.database.transact([Statement(insert, [1])])
    async with browser.session.get(f"{site.base}api/events") as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert await stream.content.readuntil(b"\n\n") == b"retry: 3000\n\n"
        await asyncio.sleep(0.5)
        moved = "UPDATE projection_offset SET next_offset = 2"
        await site.database.transact([Statement(moved)])
        told = await asyncio.wait_for(stream.content.readuntil(b"\n\n"), 10)
        assert told == b'event: changed\ndata: {"registrations":true}\n\n'
        remove(site.operators, "rui")
        await site.database.transact([Statement("UPDATE projection_offset SET next_offset = 3")])
        await asyncio.wait_for(stream.content.read(), 10)  # the last news, and then the end


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "console.js", "console.css", "icon.svg", "licences.txt"])
async def test_the_pages_files_come_under_a_strict_policy(site: ConsoleSite, name: str) -> None:
    async with site.browser().session.get(site.base + name) as answer:
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("name", ["softphone.js", "index.html", "..%2fconfig.py", "nothing"])
async def test_no_other_file_is_there(site: ConsoleSite, name: str) -> None:
    async with site.browser().session.get(site.base + name) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("origin", ["console.example.test", "https://a/b", "https://a b", "https://A.test", "ftp://a"])
def test_an_origin_that_is_none_is_a_fault_of_the_settings(origin: str) -> None:
    with pytest.raises(ConfigError, match="RAMAL_CONSOLE_ORIGIN"):
        build(Sources({"RAMAL_CONSOLE_ORIGIN": origin}, {}), None, None)  # type: ignore[arg-type]  # it needs neither
