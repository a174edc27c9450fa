"""The console in a real Chromium over a real `ramal up`, at the sizes that operators have, as they use it.

Over 400 lines: filling the site that all of them look at takes longer than most of them.
"""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from authsvc.users.file import add_user
from console.accounts import add
from ramal.processes import PackageMissing
from tests.e2e.conftest import DOMAIN, System, start_up, user
from tests.e2e.phones.browser import SECONDS, axe_source, chromium, serious_faults
from tests.kit.console_rows import MINUTE, fill
from tests.kit.phone import SDP
from tests.kit.wire import Closed

pytestmark = pytest.mark.e2e

PASSWORD = "correct horse"
REGISTRATIONS, CALLS = 100_000, 10_000
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with more registrations and calls than a campus has, maria who may, and rui who only looks."""
    directory = tmp_path_factory.mktemp("console") / "data"
    for number in range(1, 6):
        add_user(directory / "users.htdigest", user(number), DOMAIN, f"secret-{user(number)}")
    add(directory / "operators", "maria", "operator", PASSWORD)
    add(directory / "operators", "rui", "read-only", PASSWORD)
    running, system = start_up(directory)
    fill(directory / "ramal.db", int(time.time() * 1000), registrations=REGISTRATIONS, calls=CALLS)
    yield system
    assert running.end(signal.SIGINT) == 0
    assert "Traceback" not in running.output()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with chromium() as launch:
            yield launch()
    except PackageMissing as error:
        pytest.fail(f"{error} (`make test` does it, as root)", pytrace=False)


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The accessibility checker, of the version in the lock file."""
    return axe_source(tmp_path_factory.mktemp("axe"))


class Tab:
    """One tab, used by what its fields and buttons are called; `faults` is what it threw or was refused."""

    def __init__(self, browser: Browser, system: System, size: dict[str, int] = WIDE, **options: Any) -> None:
        self.base = f"{system.http[0]}/console/"
        self.context = browser.new_context(viewport=size, **{"locale": "en-US", **options})
        self.context.set_default_timeout(SECONDS)
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)
        self.page.goto(self.base)

    def log_in(self, name: str = "maria", password: str = PASSWORD) -> None:
        self.page.locator("#name").fill(name)
        self.page.locator("#password").fill(password)
        self.page.locator("#log-in button").click()

    def open(self, where: str) -> None:
        self.page.goto(f"{self.base}#/{where}")

    def rows(self) -> Any:
        return self.page.locator(".spacer .line")

    def fits(self) -> None:
        """Nothing is wider than the window."""
        width, window = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= window

    def serious(self, axe: str) -> list[str]:
        """What an accessibility checker finds that is serious or worse."""
        return serious_faults(self.page, axe)


@pytest.fixture
def tab(site: System, browser: Browser) -> Iterator[Callable[..., Tab]]:
    """Opens tabs; at the end of the test none has thrown anything."""
    opened: list[Tab] = []

    def open_(*size: dict[str, int], **options: Any) -> Tab:
        opened.append(Tab(browser, site, *size, **options))
        return opened[-1]

    with contextlib.ExitStack() as closing:
        yield open_
        for each in opened:
            closing.callback(each.context.close)
    assert [fault for each in opened for fault in each.faults] == []


def test_an_operator_logs_in_with_the_keyboard_and_out(tab: Callable[..., Tab]) -> None:
    mine = tab()
    expect(mine.page.get_by_label("Operator")).to_be_focused()
    mine.page.keyboard.type("maria")
    mine.page.keyboard.press("Tab")
    mine.page.keyboard.type(PASSWORD)
    mine.page.keyboard.press("Enter")
    expect(mine.page.get_by_role("heading", name="Registrations")).to_be_visible()
    assert mine.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    mine.page.reload()
    expect(mine.page.get_by_role("heading", name="Registrations")).to_be_visible()
    mine.page.get_by_role("button", name="Log out").click()
    expect(mine.page.get_by_label("Password")).to_be_visible()
    mine.page.reload()
    expect(mine.page.get_by_label("Password")).to_be_visible()


def test_a_hundred_thousand_registrations_open_at_once_and_scroll(tab: Callable[..., Tab]) -> None:
    mine = tab()
    mine.log_in()
    expect(mine.rows().first).to_contain_text("user000000@example.test")
    expect(mine.page.get_by_text("100,000 in all")).to_be_visible()
    body = mine.page.locator(".body")
    for _ in range(6):
        body.evaluate("(body) => body.scrollTop = body.scrollHeight")
        mine.page.wait_for_timeout(100)
    assert body.evaluate("(body) => body.scrollTop") > 200 * 44
    assert mine.rows().count() < 60  # of thousands only what is in sight is in the page
    mine.page.get_by_label("User begins with").fill("user09999")
    expect(mine.page.get_by_text("10 in all")).to_be_visible()
    mine.fits()


def test_registrations_come_go_and_are_found_as_of_then(tab: Callable[..., Tab], site: System) -> None:
    mine = tab()
    mine.log_in()
    mine.open(f"registrations?search={user(1)}")
    expect(mine.page.get_by_text("Nobody fits that.")).to_be_visible()
    with site.phone(1) as phone:
        assert phone.register(f"<sip:{user(1)}@127.0.0.1:5999>").status == 200
        expect(mine.rows().first).to_contain_text(user(1))  # by itself
        mine.page.get_by_role("link", name=f"{user(1)}@{DOMAIN}").click()
        mine.page.get_by_role("button", name="Remove").click()
        mine.page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(mine.page.get_by_text("Not registered now.")).to_be_visible()
        expect(mine.page.get_by_role("region", name="History")).to_contain_text("operator:maria")
        assert site.located(1) == []
    audit = site.ramal("tail", "audit", "--from-beginning", "--count", "1").stdout
    assert json.loads(audit)["value"]["operator"] == "maria"
    then = int(time.time() * 1000) - 30 * MINUTE
    mine.open(f"registrations?at={then}&search=user00001")
    expect(mine.rows().first).to_contain_text("user000010")
    expect(mine.page.get_by_text("Who was registered at")).to_be_visible()
    mine.page.get_by_label("As of").last.focus()
    mine.page.keyboard.press("Home")  # the slider: the beginning of the history, when all came
    expect(mine.rows().first).to_contain_text("user000010")


def test_of_a_moment_before_the_history_nothing_is_said_to_be_known(tab: Callable[..., Tab]) -> None:
    """As `ramal at` says it: that nobody was registered then is more than is known."""
    mine = tab()
    mine.log_in("rui")
    mine.open("registrations?at=1000000000000")
    expect(mine.page.get_by_text("Nothing is known of")).to_contain_text("the history begins at")
    expect(mine.page.get_by_text("Nobody")).to_have_count(0)
    mine.open(f"registrations?at={int(time.time() * 1000) - MINUTE}&search=never-was")
    expect(mine.page.get_by_text("Nobody fits that.")).to_be_visible()


def test_why_a_phone_cannot_log_in_stands_on_its_users_page(tab: Callable[..., Tab], site: System) -> None:
    """Who has never registered is in no list: the search leads to the page."""
    with site.phone(3) as phone:
        assert phone.registers(f"Contact: <{phone.contact}>", password="mistyped").status == 401
    mine = tab()
    mine.log_in("rui")
    mine.page.get_by_label("User", exact=False).first.fill(user(3))
    mine.page.get_by_role("link", name=f"Page of {user(3)}").click()
    failures = mine.page.get_by_role("region", name="Failed log-ins of the last day")
    expect(failures).to_contain_text("wrong password")
    expect(failures).to_contain_text("127.0.0.1")
    mine.open(f"registrations/{user(4)}@{DOMAIN}")
    expect(mine.page.get_by_text("does not get as far as a password")).to_be_visible()


def test_a_kick_closes_the_phones_connection_in_the_operators_name(tab: Callable[..., Tab], site: System) -> None:
    mine = tab()
    mine.log_in()
    with site.phone(2, transport="ws") as phone:
        phone.register()
        mine.open(f"registrations/{user(2)}@{DOMAIN}")
        mine.page.get_by_role("button", name="Kick").first.click()
        mine.page.get_by_role("dialog").get_by_role("button", name="Kick").click()
        expect(mine.page.get_by_text("Not registered now.")).to_be_visible()
        with pytest.raises(Closed):
            phone.link.receive(time.monotonic() + 5)
        expect(mine.page.get_by_role("region", name="History")).to_contain_text("operator:maria")


def test_who_only_looks_has_no_button_to_remove(tab: Callable[..., Tab]) -> None:
    mine = tab()
    mine.log_in("rui")
    mine.open("registrations/user000123@example.test")
    expect(mine.page.get_by_role("region", name="History")).to_contain_text("registered")
    expect(mine.page.get_by_role("button", name="Remove")).to_have_count(0)
    expect(mine.page.get_by_role("button", name="Kick")).to_have_count(0)


def test_ten_thousand_calls_open_at_once_and_are_found(tab: Callable[..., Tab]) -> None:
    mine = tab()
    mine.log_in("rui")
    mine.open("calls")
    expect(mine.rows().first).to_contain_text("user000000@example.test")
    assert mine.rows().count() < 60
    mine.page.get_by_label("Code").fill("486")
    expect(mine.rows().first).to_contain_text("failed, 486 Busy Here")
    mine.page.get_by_label("User").fill("user0012")
    expect(mine.rows().first).to_contain_text("user00120")
    mine.page.reload()  # the address has what was asked for
    expect(mine.page.get_by_label("User")).to_have_value("user0012")
    expect(mine.rows().first).to_contain_text("user00120")


def test_a_call_is_seen_while_it_lasts_and_told_in_words_and_as_a_ladder(
    tab: Callable[..., Tab], site: System, tmp_path: Path
) -> None:
    mine = tab()
    mine.log_in("rui")
    mine.open("calls?live=1")
    expect(mine.page.get_by_text("No call fits that.")).to_be_visible()
    with site.phone(2) as alice, site.phone(3) as bob:
        alice.register()
        bob.register()
        call = alice.invite(bob.aor)
        incoming = bob.incoming()
        incoming.respond(180)
        call.hears(180)
        incoming.respond(200, body=SDP)
        call.hears(200)
        call.ack()
        incoming.gets("ACK")
        expect(mine.rows().first).to_contain_text("answered")  # by itself
        mine.rows().first.get_by_role("link").click()
        expect(mine.page.get_by_text("It is answered and lasts.")).to_be_visible()
        incoming.request("BYE")
        call.respond(200, to=call.gets("BYE"))
        incoming.hears(200)
        expect(mine.page.get_by_text("and the callee hung up after")).to_be_visible()
    ladder = mine.page.get_by_role("region", name="Ladder")
    expect(ladder).to_contain_text("180 Ringing")
    assert ladder.locator("text.said").all_text_contents()[:2] == ["INVITE", "INVITE"]
    assert ladder.locator("text.said").last.text_content() == "BYE"
    mine.page.screenshot(path=tmp_path / "ladder.png", full_page=True)


def test_statistics_are_drawn_and_health_is_told(tab: Callable[..., Tab]) -> None:
    mine = tab()
    mine.log_in("rui")
    mine.open("statistics")
    expect(mine.page.locator(".chart canvas")).to_have_count(6)
    mine.page.get_by_label("By", exact=True).select_option("hour")
    expect(mine.page.locator(".chart canvas")).to_have_count(6)
    mine.open("health")
    expect(mine.page.get_by_role("region", name="Processes")).to_contain_text("ready")
    expect(mine.page.get_by_role("region", name="Tables behind the log")).to_contain_text("registrations")


# --- when something goes wrong ---------------------------------------------------------------------------------------


def refuse(route: Any, *, error: str = "away", status: int = 503) -> None:
    route.fulfill(status=status, json={"error": error, "seconds": 2, "detail": "tables"})


@pytest.fixture
def refused(tab: Callable[..., Tab]) -> Iterator[Callable[..., Tab]]:
    """Tabs that are refused things, of which the browser tells at its console."""
    opened: list[Tab] = []

    def open_(*size: dict[str, int], **options: Any) -> Tab:
        opened.append(tab(*size, **options))
        return opened[-1]

    yield open_
    for each in opened:
        each.faults[:] = [fault for fault in each.faults if "Failed to load resource" not in fault]


def test_a_list_that_was_refused_shows_nothing_old_and_goes_on_when_it_may(refused: Callable[..., Tab]) -> None:
    mine = refused()
    mine.log_in()
    expect(mine.rows().first).to_be_visible()
    mine.page.route("**/api/registrations?*after=*", lambda route: None)  # the next rows never come
    body = mine.page.locator(".body")
    body.evaluate("(body) => body.scrollTop = body.scrollHeight")
    mine.page.route("**/api/registrations?*search=user0000*", refuse)
    search = mine.page.get_by_label("User begins with")
    search.fill("user0000")
    expect(mine.page.get_by_role("alert")).to_contain_text("tables")
    expect(mine.rows()).to_have_count(0)
    expect(mine.page.get_by_text("Nobody fits that.")).to_be_hidden()
    mine.page.unroute_all()
    search.fill("user000")
    expect(mine.page.get_by_text("1,000 in all")).to_be_visible()
    expect(mine.page.get_by_role("alert")).to_be_hidden()
    for _ in range(4):
        body.evaluate("(body) => body.scrollTop = body.scrollHeight")
        mine.page.wait_for_timeout(200)
    assert body.evaluate("(body) => body.scrollTop") > 300 * 44


def test_what_cannot_be_found_is_said_to_be_so(refused: Callable[..., Tab]) -> None:
    mine = refused()
    mine.log_in()
    mine.open("calls")
    expect(mine.rows().first).to_be_visible()
    mine.page.get_by_label("Code").fill("999")
    expect(mine.page.get_by_role("alert")).to_have_text("This cannot be searched for: code")
    expect(mine.rows()).to_have_count(0)
    mine.page.get_by_label("Code").fill("4")  # is being typed
    expect(mine.rows().first).to_be_visible()
    mine.page.get_by_label("User").fill("never-was")
    expect(mine.page.get_by_text("No call fits that.")).to_be_visible()


def test_what_happened_while_the_connection_was_lost_is_shown_once_it_is_back(refused: Callable[..., Tab]) -> None:
    """A phone leaves the network and comes back: neither the list of before nor "not reachable" stays."""
    mine = refused()
    mine.page.route("**/api/events", lambda route: route.abort())
    mine.log_in()
    expect(mine.rows().first).to_be_visible()
    expect(mine.page.locator("#live")).not_to_have_attribute("data-live", "live")
    mine.page.route("**/api/calls?*", lambda route: route.abort())
    mine.page.route("**/api/calls", lambda route: route.abort())
    mine.open("calls")
    expect(mine.page.get_by_role("alert")).to_be_visible()
    mine.page.unroute_all()
    expect(mine.rows().first).to_be_visible()
    expect(mine.page.get_by_role("alert")).to_be_hidden()
    expect(mine.page.locator("#live")).to_have_attribute("data-live", "live")


def test_what_a_newer_server_names_is_said_in_words_that_there_are(refused: Callable[..., Tab]) -> None:
    mine = refused()
    mine.log_in()
    mine.page.route("**/api/health", lambda route: refuse(route, error="something_new", status=418))
    mine.open("health")
    expect(mine.page.get_by_role("alert")).to_have_text("That went wrong.")


def test_what_a_page_was_refused_is_not_said_on_the_next(refused: Callable[..., Tab]) -> None:
    mine = refused()
    mine.log_in()
    held: list[Any] = []
    mine.page.route("**/api/statistics*", lambda route: held.append(route))
    mine.open("statistics")
    expect(mine.page.get_by_role("heading", name="Statistics")).to_be_visible()
    mine.page.wait_for_timeout(200)
    mine.open("calls")
    expect(mine.rows().first).to_be_visible()
    for route in held:
        refuse(route)
    mine.page.wait_for_timeout(300)
    expect(mine.page.get_by_role("alert")).to_be_hidden()


def test_a_tab_that_nobody_sees_has_no_stream_and_one_of_another_session_begins_anew(tab: Callable[..., Tab]) -> None:
    mine = tab()
    mine.log_in()
    expect(mine.page.locator("#live")).to_have_attribute("data-live", "live")
    other = mine.context.new_page()
    other.goto(mine.base)
    expect(other.get_by_role("heading", name="Registrations")).to_be_visible()

    def be_seen(seen: bool) -> None:
        mine.page.evaluate(
            "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
            " document.dispatchEvent(new Event('visibilitychange')); }",
            not seen,
        )

    streams: list[str] = []
    mine.page.on("request", lambda request: streams.append(request.url) if "api/events" in request.url else None)
    be_seen(False)
    other.get_by_role("button", name="Log out").click()
    other.locator("#name").fill("rui")
    other.locator("#password").fill(PASSWORD)
    other.locator("#log-in button").click()
    expect(other.locator("#who")).to_contain_text("rui")
    assert streams == []
    be_seen(True)
    expect(mine.page.locator("#who")).to_contain_text("rui")


def test_an_address_that_is_no_page_is_said_to_be_none_and_leads_home(tab: Callable[..., Tab]) -> None:
    mine = tab()
    mine.log_in("rui")
    expect(mine.rows().first).to_be_visible()
    for where in ("#/foo/bar", "#/constructor", "#/health/x", "#/registrations/alice/x", "#registrations", "#/Calls"):
        mine.page.goto(f"{mine.base}{where}")
        expect(mine.page.get_by_role("heading", name="There is no such page")).to_be_visible()
        expect(mine.page.get_by_text(f"Nothing is at {where}.")).to_be_visible()
        expect(mine.page.locator("#top [aria-current]")).to_have_count(0)
    mine.page.locator("#view").get_by_role("link", name="Registrations").click()
    expect(mine.rows().first).to_be_visible()


def test_an_operator_is_logged_out_everywhere_by_another_and_by_himself(refused: Callable[..., Tab]) -> None:
    rui, mine = refused(), refused()
    rui.log_in("rui")
    mine.log_in()
    mine.page.get_by_role("link", name="maria").click()
    theirs = mine.page.get_by_role("row", name="rui looks only")
    theirs.get_by_role("button", name="Log out everywhere").click()
    mine.page.get_by_role("dialog").get_by_role("button", name="Keep").click()
    theirs.get_by_role("button", name="Log out everywhere").click()
    mine.page.get_by_role("dialog").get_by_role("button", name="Log out everywhere").click()
    expect(theirs.get_by_role("button")).to_have_count(0)
    expect(rui.page.get_by_label("Password")).to_be_visible()  # by itself: its stream ends
    rui.log_in("rui")
    rui.open("operators")
    expect(rui.page.get_by_role("row", name="maria may end registrations")).to_be_visible()
    expect(rui.page.get_by_role("button", name="Log out everywhere")).to_have_count(1)
    rui.page.get_by_role("button", name="Log out everywhere").click()
    rui.page.get_by_role("dialog").get_by_role("button", name="Log out everywhere").click()
    expect(rui.page.get_by_label("Password")).to_be_visible()


@pytest.mark.parametrize(
    ("locale", "words", "shape"),
    [
        (
            "en-US",
            "of 2023-11-14 22:13:20: the history begins at 20",
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d",
        ),
        (
            "en-GB",
            "of 2023-11-14 22:13:20: the history begins at 20",
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d",
        ),
        ("pt-BR", "de 14/11/2023, 22:13:20: o histórico começa em ", r"\d\d/\d\d/\d{4}, \d\d:\d\d:\d\d"),
    ],
)
def test_a_date_says_which_of_its_numbers_is_the_month(
    tab: Callable[..., Tab], locale: str, words: str, shape: str
) -> None:
    """By the year that comes first, as the commands write it; in Portuguese the day always comes first."""
    mine = tab(locale=locale, timezone_id="UTC")
    mine.log_in("rui")
    mine.open("registrations?at=1700000000000")
    expect(mine.page.get_by_text(words)).to_be_visible()
    mine.open("calls")
    expect(mine.rows().first.get_by_role("link")).to_have_text(re.compile(f"^{shape}$"))


# --- how it looks ----------------------------------------------------------------------------------------------------

FILLED = 1_000_000 << 10
"""The call that is shown at its full length; the log has nothing of it."""
TALKED = "the last call"
PAGES = {
    "log-in": "",
    "registrations": "registrations",
    "as-of": "registrations?search=user0001&at={then}",
    "nobody": "registrations?search=nobody-is-called-so",
    "user": "registrations/user000123@example.test",
    "calls": "calls",
    "call": f"calls/{FILLED}",
    "ladder": TALKED,
    "statistics": "statistics",
    "health": "health",
    "operators": "operators",
}
ALL = os.environ.get("RAMAL_SCREENSHOTS") == "all"
SCREENSHOTS = Path(os.environ.get("RAMAL_RUN", Path(__file__).parents[3] / ".run")) / "screenshots"
"""Where the pages are kept as they looked: `PAGE-LANGUAGE-WIDTH-SCHEME.png`."""
LOOKS = [
    (language, size, scheme) for language in ("en", "pt") for size in (WIDE, NARROW) for scheme in ("light", "dark")
]


@pytest.fixture(scope="module")
def talked(site: System) -> str:
    """The caller of three calls of this minute: busy, declined, answered."""
    with site.phone(4) as alice, site.phone(5) as bob:
        alice.register()
        bob.register()
        for status in (486, 603, 200):
            call = alice.invite(bob.aor)
            incoming = bob.incoming()
            incoming.respond(180)
            call.hears(180)
            if status == 200:
                incoming.respond(200, body=SDP)
                call.hears(200)
                call.ack()
                incoming.gets("ACK")
                incoming.request("BYE")
                call.respond(200, to=call.gets("BYE"))
                incoming.hears(200)
            else:
                incoming.respond(status)
                call.hears(status)
                call.ack()
    return user(4)


@pytest.mark.parametrize(
    ("language", "size", "scheme"),
    LOOKS if ALL else [LOOKS[0], LOOKS[-1]],
    ids=lambda value: str(value["width"]) if isinstance(value, dict) else value,
)
def test_every_page_fits_has_no_serious_fault_of_accessibility_and_its_language(
    tab: Callable[..., Tab], axe: str, talked: str, language: str, size: dict[str, int], scheme: str
) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    mine = tab(size, color_scheme=scheme, locale={"en": "en-GB", "pt": "pt-BR"}[language])
    found = {}
    for name, where in PAGES.items():
        if where == TALKED:
            mine.open(f"calls?user={talked}")
            mine.rows().first.get_by_role("link").click()
            expect(mine.page.locator(".ladder svg")).to_be_visible()
        elif where:
            mine.open(where.format(then=int(time.time() * 1000) - 30 * MINUTE))
        if where:
            expect(mine.page.locator("#view h1")).to_be_visible()
            mine.page.wait_for_timeout(300)
        found[name] = mine.serious(axe)
        mine.fits()
        shot = SCREENSHOTS / f"{name}-{language}-{size['width']}-{scheme}.png"
        mine.page.screenshot(path=shot, full_page=name in ("ladder", "statistics", "health"))
        if not where:
            mine.log_in()
            expect(mine.page.locator("#view h1")).to_be_visible()
    assert {where: faults for where, faults in found.items() if faults} == {}
    assert mine.page.locator("html").get_attribute("lang") == {"en": "en", "pt": "pt-BR"}[language]
