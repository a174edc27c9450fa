"""The softphone of `ramal up` in two tabs of a real browser (CHECKLIST W11), screenshots kept in .run/softphone.

Over 400 lines: one page and its calls share the browsers that they are begun in.
"""

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, expect

from authsvc.users.file import add_user
from ramal.processes import PackageMissing
from tests.e2e.conftest import DOMAIN, System, start_up
from tests.e2e.phones.browser import ALLOWED, NO_CAMERA, REFUSED, SECONDS, Softphone, chromium

pytestmark = pytest.mark.e2e

PICTURES = Path(__file__).parents[3] / ".run" / "softphone"
USERS = ("alice", "bob")
GUESSED = "carol"
"""Whom the test of lock-outs shuts out."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    directory = tmp_path_factory.mktemp("softphone")
    for name in (*USERS, GUESSED):
        add_user(directory / "data" / "users.htdigest", name, DOMAIN, f"secret-{name}")
    running, found = start_up(directory / "data")
    yield found
    assert running.end(signal.SIGINT) == 0
    assert "Traceback" not in running.output()


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Browser]]:
    try:
        with chromium() as started:
            yield started
    except PackageMissing as error:
        pytest.fail(f"{error} (`make test` does it, as root)", pytrace=False)


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser]) -> Browser:
    """One that lets every page have the microphone."""
    return launch(ALLOWED)


@pytest.fixture
def tabs(system: System, browser: Browser) -> Iterator[tuple[Softphone, Softphone]]:
    """alice and bob, registered; whatever a test does, no page may have had a fault."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    opened = [Softphone(browser, system.page) for _ in USERS]
    for tab, name in zip(opened, USERS, strict=True):
        tab.register(name, f"secret-{name}")
    yield opened[0], opened[1]
    faults = [fault for tab in opened for fault in tab.faults]
    for tab in opened:
        tab.close()
    assert faults == []


def test_w11_two_tabs_call_with_audio_and_video_and_both_receive_it(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    alice.picture(PICTURES / "1-registered.png")
    alice.call("bob", video=True)
    bob.sees("calls you with video")
    alice.sees("Ringing")
    bob.picture(PICTURES / "2-incoming.png")
    bob.click("With video")
    for tab in tabs:
        tab.sees("Connected")
        tab.hears("audio", "video")
        expect(tab.page.locator("#stage")).to_have_attribute("data-picture", "true", timeout=SECONDS)
    alice.picture(PICTURES / "3-talking.png")
    bob.click("Hang up")
    for tab in tabs:
        tab.can_dial()


def test_w11_an_audio_call_the_other_way_ended_by_the_caller(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    bob.call("alice")
    alice.sees("calls you")
    alice.click("Answer")
    for tab in tabs:
        tab.sees("Connected")
        tab.hears("audio")
        assert "video" not in tab.received()
    bob.click("Hang up")
    for tab in tabs:
        tab.can_dial()


def test_a_video_call_may_be_answered_without_a_picture(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    alice.call("bob", video=True)
    bob.sees("calls you with video")
    bob.click("Answer")
    bob.sees("Connected")
    alice.hears("audio")
    bob.hears("audio", "video")
    assert not alice.received().get("video")
    alice.click("Hang up")
    bob.can_dial()


def test_muting_stops_the_sound_but_not_the_call(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    alice.call("bob")
    bob.click("Answer")
    bob.sees("Connected")
    bob.hears("audio")
    alice.click("Mute")
    mute = alice.page.get_by_role("button", name="Mute")
    expect(mute).to_have_attribute("aria-pressed", "true")
    assert alice.page.evaluate(
        "window.connections.at(-1).getSenders().filter((s) => s.track).every((s) => !s.track.enabled)"
    )
    alice.click("Mute")
    expect(mute).to_have_attribute("aria-pressed", "false")
    alice.click("Keypad")
    alice.click("5")
    bob.hears("audio")
    alice.click("Hang up")
    bob.can_dial()


def test_a_call_that_is_declined_is_told_the_caller(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    alice.call("bob")
    bob.click("Decline")
    alice.is_warned("bob declined the call.")
    alice.can_dial()
    bob.can_dial()


def test_a_call_that_the_caller_gives_up_is_told_the_callee(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    alice.call("bob")
    bob.has_button("Answer")
    alice.click("Hang up")
    bob.is_warned("alice called you.")
    bob.can_dial()


def test_who_talks_is_busy_to_a_third(tabs: tuple[Softphone, Softphone], system: System, browser: Browser) -> None:
    alice, bob = tabs
    alice.call("bob")
    bob.click("Answer")
    alice.sees("Connected")
    # The same user in another tab: his call forks to the one that talks, which is busy.
    other = Softphone(browser, system.page)
    other.register("alice", "secret-alice")
    other.call("bob")
    other.is_warned("bob is busy.")
    other.click("Sign out")
    other.close()
    bob.hears("audio")
    alice.click("Hang up")


def test_who_is_not_there_is_said_so(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    alice.call("nobody")
    alice.is_warned("There is nobody called nobody.")
    bob.click("Sign out")
    bob.has_button("Sign in")
    expect(bob.page.get_by_role("status").filter(has_text="Signed out")).to_be_visible()


def test_a_wrong_password_is_said_and_the_form_is_there_again(system: System, browser: Browser) -> None:
    tab = Softphone(browser, system.page)
    tab.type_credentials("alice", "not it")
    tab.is_warned("The name or the password is wrong.")
    expect(tab.page.get_by_label("Password")).to_have_value("")
    tab.register("alice", "secret-alice")
    tab.click("Sign out")
    tab.close()


def test_who_is_locked_out_is_told_so_and_for_how_long(system: System, browser: Browser) -> None:
    tab = Softphone(browser, system.page)
    for _ in range(10):
        tab.type_credentials(GUESSED, "not it")
        tab.is_warned("The name or the password is wrong.")
    tab.type_credentials(GUESSED, f"secret-{GUESSED}")
    expect(tab.page.get_by_role("alert")).to_have_text(
        re.compile(r"Too many attempts\. Try again in \d+ seconds\."), timeout=SECONDS
    )
    tab.close()


def test_ones_own_name_is_not_called(tabs: tuple[Softphone, Softphone]) -> None:
    alice, _ = tabs
    alice.call("alice")
    alice.is_warned("That is you yourself.")
    alice.can_dial()


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (500, "The call did not come about: a server on the way failed. Try again."),
        (503, "The server is busy. Try again in a moment."),
        (408, "bob did not answer."),
        (430, "bob is not reachable."),
        (420, "The call to bob was not accepted."),
    ],
)
def test_a_failed_call_is_told_in_words(tabs: tuple[Softphone, Softphone], status: int, says: str) -> None:
    alice, _ = tabs
    answer = "\\r\\n".join((f"SIP/2.0 {status} Other", "$1", "Content-Length: 0", "", ""))
    # The server's answer in the place of an INVITE's: what it says is the page's to tell.
    alice.page.evaluate(
        """(answer) => {
          const send = WebSocket.prototype.send;
          WebSocket.prototype.send = function (text) {
            if (!/^INVITE /.test(text)) return /^ACK /.test(text) ? undefined : send.call(this, text);
            WebSocket.prototype.send = send;
            const rows = text.split("\\r\\n").filter((row) => /^(Via|From|To|Call-ID|CSeq):/.test(row));
            const made = answer.replace("$1", rows.join("\\r\\n").replace(/^(To:.*)$/m, "$1;tag=other"));
            this.onmessage({ data: made });
          };
        }""",
        answer.replace("\\r\\n", "\r\n"),
    )
    alice.call("bob")
    alice.is_warned(says)
    alice.can_dial()


def test_missed_calls_are_a_list_from_which_one_calls_back(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    for _ in range(2):
        alice.call("bob")
        bob.has_button("Answer")
        alice.click("Hang up")
        bob.can_dial()
    expect(bob.page.get_by_role("listitem")).to_have_count(2, timeout=SECONDS)
    expect(bob.page.get_by_role("listitem").first).to_contain_text(re.compile(r"alice\s*\d+:\d\d"))
    bob.picture(PICTURES / "5-missed.png")
    bob.page.get_by_role("button", name="Call alice back").first.click()
    alice.click("Answer")
    bob.sees("Connected")
    bob.click("Hang up")
    alice.can_dial()


def test_the_keyboard_follows_the_call(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    alice.call("bob")
    expect(bob.page.get_by_role("button", name="Answer", exact=True)).to_be_focused(timeout=SECONDS)
    bob.page.keyboard.press("Enter")
    bob.sees("Connected")
    expect(bob.page.get_by_role("button", name="Hang up")).to_be_focused()
    bob.page.keyboard.press("Enter")
    alice.can_dial()


def test_who_is_muted_sees_it_in_words(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    alice.call("bob")
    bob.click("Answer")
    alice.sees("Connected")
    alice.click("Mute")
    alice.sees("Your microphone is off")
    alice.picture(PICTURES / "6-muted.png")
    alice.click("Mute")
    expect(alice.page.get_by_text("Your microphone is off")).to_be_hidden()
    alice.click("Hang up")
    bob.can_dial()


def test_a_call_whose_connection_has_failed_ends_on_both_sides(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    alice.call("bob")
    bob.click("Answer")
    for tab in tabs:
        tab.sees("Connected")
    alice.page.evaluate(
        """() => {
          const connection = window.connections.at(-1);
          Object.defineProperty(connection, "connectionState", { get: () => "failed" });
          connection.dispatchEvent(new Event("connectionstatechange"));
        }"""
    )
    alice.is_warned("The connection of the call was lost.")
    alice.can_dial()
    bob.can_dial()


def test_a_reload_during_a_call_asks_before(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    alice.call("bob")
    bob.click("Answer")
    alice.sees("Connected")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    alice.page.on("dialog", stay)
    with alice.page.expect_event("dialog", timeout=SECONDS):
        alice.page.close(run_before_unload=True)
    assert asked == ["beforeunload"]
    alice.hears("audio")
    alice.click("Hang up")
    bob.can_dial()


def test_the_picture_fills_the_window(tabs: tuple[Softphone, Softphone]) -> None:
    alice, bob = tabs
    alice.call("bob", video=True)
    bob.click("With video")
    stage = alice.page.locator("#stage")
    expect(stage).to_have_attribute("data-picture", "true", timeout=SECONDS)
    assert stage.bounding_box() == {"x": 0, "y": 0, "width": 1280, "height": 720}
    alice.picture(PICTURES / "7-picture.png")
    alice.page.set_viewport_size({"width": 390, "height": 844})
    assert stage.bounding_box() == {"x": 0, "y": 0, "width": 390, "height": 844}
    alice.picture(PICTURES / "8-picture-390.png")
    tops = alice.page.locator("#controls button").evaluate_all("(all) => all.map((one) => one.offsetTop)")
    assert len(set(tops)) == 1
    alice.click("Mute")
    alice.click("Keypad")
    keys = alice.page.locator("#keypad").bounding_box()
    assert keys
    for text in ("#peer", "#phase", "#time", "#muted"):  # who it is can be read beside the keypad
        box, own = alice.page.locator(text).bounding_box(), alice.page.locator("#local").bounding_box()
        assert box
        assert own
        assert box["y"] + box["height"] <= keys["y"], text
        assert box["x"] + box["width"] <= own["x"] or box["y"] >= own["y"] + own["height"], text
    alice.click("Hang up")
    bob.can_dial()


@pytest.mark.parametrize("language", ["en-US", "pt-BR"])
def test_every_button_is_on_one_line_on_a_telephone(system: System, browser: Browser, language: str) -> None:
    tab = Softphone(browser, system.page, language)
    tab.page.set_viewport_size({"width": 390, "height": 844})
    tab.page.evaluate("for (const hidden of document.querySelectorAll('[hidden]')) hidden.hidden = false;")
    rows = tab.page.evaluate(
        """() => [...document.querySelectorAll("main button")].map((button) => {
          const texts = document.createRange();
          texts.selectNodeContents(button.querySelector("span") ?? button);
          return [button.id || button.textContent, texts.getClientRects().length, button.getBoundingClientRect().right];
        })"""
    )
    assert [row for row in rows if row[1] != 1 or row[2] > 390] == []
    for group in ("#dial .row", "#controls"):
        tops = tab.page.locator(f"{group} button").evaluate_all("(all) => all.map((one) => one.offsetTop)")
        assert len(set(tops)) == 1, group
    tab.picture(PICTURES / f"9-telephone-{language}.png")
    tab.close()


def test_nothing_is_stored_in_the_browser(tabs: tuple[Softphone, Softphone]) -> None:
    alice, _ = tabs
    assert alice.stored() == [0, 0, "", 0, 0]
    assert alice.page.locator("#password").input_value() == ""


def test_a_refused_microphone_is_said_and_nobody_is_called(system: System, launch: Callable[..., Browser]) -> None:
    tab = Softphone(launch(REFUSED), system.page)
    tab.register("alice", "secret-alice")
    tab.call("bob")
    tab.is_warned("The microphone was refused. Allow it for this page in the browser, then try again.")
    tab.can_dial()
    tab.close()


def test_a_video_call_without_a_camera_goes_on_without_a_picture(
    system: System, launch: Callable[..., Browser], tabs: tuple[Softphone, Softphone]
) -> None:
    _, bob = tabs
    tab = Softphone(launch(NO_CAMERA, ALLOWED), system.page)
    tab.register("alice", "secret-alice")
    tab.call("bob", video=True)
    tab.is_warned("There is no camera. The call goes on without your picture.")
    bob.click("With video")
    for each in (tab, bob):  # JsSIP refuses a BYE that comes while it waits for the ACK
        each.sees("Connected")
    tab.hears("audio", "video")
    bob.hears("audio")
    tab.click("Hang up")
    bob.can_dial()
    tab.close()


def test_a_server_that_is_away_is_said_and_tried_again(browser: Browser, tmp_path: Path) -> None:
    add_user(tmp_path / "data" / "users.htdigest", "alice", DOMAIN, "secret-alice")
    running, system = start_up(tmp_path / "data")
    tab = Softphone(browser, system.page)
    port = tab.page.evaluate("location.port")
    tab.register("alice", "secret-alice")
    assert running.end(signal.SIGINT) == 0
    tab.is_warned("The server is not reachable. Trying again …")
    tab.sees("Not connected")
    running, _ = start_up(tmp_path / "data", "--page-port", port)
    tab.sees("Signed in")
    tab.close()
    assert running.end(signal.SIGINT) == 0


def test_the_page_speaks_portuguese_to_a_portuguese_browser(system: System, browser: Browser) -> None:
    tab = Softphone(browser, system.page, "pt-BR")
    expect(tab.page.get_by_label("Senha")).to_be_visible()
    assert tab.page.locator("html").get_attribute("lang") == "pt-BR"
    tab.close()
