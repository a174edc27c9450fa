"""The softphone of `ramal up` in two tabs of a real browser (CHECKLIST W11), screenshots kept in .run/softphone."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from authsvc.users_file import add_user
from ramal.processes import PackageMissing
from tests.e2e.browser import ALLOWED, NO_CAMERA, REFUSED, SECONDS, Softphone, chromium
from tests.e2e.conftest import DOMAIN, System, start_up

pytestmark = pytest.mark.e2e

PICTURES = Path(__file__).parents[2] / ".run" / "softphone"
USERS = ("alice", "bob")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    directory = tmp_path_factory.mktemp("softphone")
    for name in USERS:
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
    opened = [Softphone(browser, system.http[0]) for _ in USERS]
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
    other = Softphone(browser, system.http[0])
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
    bob.has_button("Register")
    expect(bob.page.get_by_role("status").filter(has_text="Not registered")).to_be_visible()


def test_a_wrong_password_is_said_and_the_form_is_there_again(system: System, browser: Browser) -> None:
    tab = Softphone(browser, system.http[0])
    tab.type_credentials("alice", "not it")
    tab.is_warned("The name or the password is wrong.")
    expect(tab.page.get_by_label("Password")).to_have_value("")
    tab.register("alice", "secret-alice")
    tab.click("Sign out")
    tab.close()


def test_nothing_is_stored_in_the_browser(tabs: tuple[Softphone, Softphone]) -> None:
    alice, _ = tabs
    assert alice.stored() == [0, 0, "", 0, 0]
    assert alice.page.locator("#password").input_value() == ""


def test_a_refused_microphone_is_said_and_nobody_is_called(system: System, launch: Callable[..., Browser]) -> None:
    tab = Softphone(launch(REFUSED), system.http[0])
    tab.register("alice", "secret-alice")
    tab.call("bob")
    tab.is_warned("The microphone was refused. Allow it for this page in the browser, then try again.")
    tab.can_dial()
    tab.close()


def test_a_video_call_without_a_camera_goes_on_without_a_picture(
    system: System, launch: Callable[..., Browser], tabs: tuple[Softphone, Softphone]
) -> None:
    _, bob = tabs
    tab = Softphone(launch(NO_CAMERA, ALLOWED), system.http[0])
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
    tab = Softphone(browser, system.http[0])
    port = tab.page.evaluate("fetch('settings.json').then((answer) => answer.json())")["port"]
    tab.register("alice", "secret-alice")
    assert running.end(signal.SIGINT) == 0
    tab.is_warned("The server is not reachable. Trying again …")
    tab.sees("Not connected")
    running, _ = start_up(tmp_path / "data", "--ws-port", str(port))
    tab.sees("Registered")
    tab.close()
    assert running.end(signal.SIGINT) == 0


def test_the_page_speaks_portuguese_to_a_portuguese_browser(system: System, browser: Browser) -> None:
    tab = Softphone(browser, system.http[0], "pt-BR")
    expect(tab.page.get_by_label("Senha")).to_be_visible()
    assert tab.page.locator("html").get_attribute("lang") == "pt-BR"
    tab.close()
