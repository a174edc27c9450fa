"""A browser and a desk phone of another maker speak through a real rtpengine (CHECKLIST N17): softphone and baresip."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authsvc.users.file import add_user
from ramal.processes import PackageMissing
from tests.e2e.conftest import CALLERS, DOMAIN, System, start_up, user
from tests.e2e.phones.baresip import Baresip, frequency
from tests.e2e.phones.browser import ALLOWED, Softphone, chromium
from tests.kit.rtpengine import RtpengineServer, start_rtpengine

pytestmark = pytest.mark.e2e

ALICE, BOB = CALLERS[0], CALLERS[1]
LOUD = 1000
"""Of 32767: what a sample of Chromium's made-up microphone exceeds while it beeps."""


@pytest.fixture(scope="module")
def rtpengine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtpengineServer]:
    try:
        started = start_rtpengine(tmp_path_factory.mktemp("rtpengine"))
    except PackageMissing as error:
        pytest.fail(f"{error} (`make test` does it, as root)", pytrace=False)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, rtpengine: RtpengineServer) -> Iterator[System]:
    directory = tmp_path_factory.mktemp("bridged")
    for number in (ALICE, BOB):
        add_user(directory / "data" / "users.htdigest", user(number), DOMAIN, f"secret-{user(number)}")
    running, found = start_up(
        directory / "data",
        RAMAL_DOMAINS=json.dumps({DOMAIN: {"media": "bridge"}}),
        RAMAL_EDGE_RTPENGINE=json.dumps([rtpengine.name]),
    )
    yield found
    assert running.end(signal.SIGINT) == 0
    assert "Traceback" not in running.output()


@pytest.fixture
def tab(system: System) -> Iterator[Softphone]:
    """alice in a browser, registered; whatever a test does, the page may have had no fault."""
    try:
        with chromium() as launch:
            opened = Softphone(launch(ALLOWED), system.page)
            opened.register(user(ALICE), f"secret-{user(ALICE)}")
            yield opened
            faults = opened.faults
            opened.close()
            assert faults == []
    except PackageMissing as error:
        pytest.fail(f"{error} (`make test` does it, as root)", pytrace=False)


@pytest.fixture
def desk(system: System, tmp_path: Path) -> Iterator[Callable[..., Baresip]]:
    """Makes desk phones."""
    phones: list[Baresip] = []

    def make(number: int, *, answers: bool) -> Baresip:
        at = system.at[0]["udp"]
        phone = Baresip(
            tmp_path / str(len(phones)),
            user(number),
            DOMAIN,
            at,
            "udp",
            tone=440,
            authority=system.authority,
            answers=answers,
        )
        phones.append(phone)
        return phone

    yield make
    for phone in phones:
        phone.close()


def test_n17_a_browser_calls_baresip_and_each_hears_the_other(
    system: System, rtpengine: RtpengineServer, tab: Softphone, desk: Callable[..., Baresip]
) -> None:
    bob = desk(BOB, answers=True)
    system.wait_located(BOB)
    tab.call(user(BOB))
    tab.sees("Connected")
    tab.hears("audio")
    bob.wait_to_hear(3)
    assert len(rtpengine.calls()) == 1
    tab.click("Hang up")
    bob.sees("CALL_CLOSED")
    tab.can_dial()
    assert max(bob.heard()) > LOUD
    assert rtpengine.calls() == []


def test_n17_baresip_calls_a_user_with_a_browser_and_a_desk_phone_and_the_browser_answers(
    system: System, rtpengine: RtpengineServer, tab: Softphone, desk: Callable[..., Baresip]
) -> None:
    bob, other = desk(BOB, answers=False), desk(ALICE, answers=False)
    system.wait_located(BOB)
    system.wait_located(ALICE, 2)
    bob.does("dial", f"sip:{user(ALICE)}@{DOMAIN}")
    other.sees("CALL_INCOMING")
    tab.sees("calls you")
    tab.click("Answer")
    bob.sees("CALL_ESTABLISHED")
    other.sees("CALL_CLOSED")
    tab.sees("Connected")
    tab.hears("audio")
    bob.wait_to_hear(3)
    bob.does("hangup")
    bob.sees("CALL_CLOSED")
    tab.can_dial()
    assert max(bob.heard()) > LOUD
    assert rtpengine.calls() == []


def test_n17_baresip_calls_a_user_with_a_browser_and_a_desk_phone_and_the_desk_phone_answers(
    system: System, rtpengine: RtpengineServer, tab: Softphone, desk: Callable[..., Baresip]
) -> None:
    bob, other = desk(BOB, answers=False), desk(ALICE, answers=False)
    system.wait_located(BOB)
    system.wait_located(ALICE, 2)
    bob.does("dial", f"sip:{user(ALICE)}@{DOMAIN}")
    other.sees("CALL_INCOMING")
    tab.sees("calls you")
    other.does("accept")
    for phone in (bob, other):
        phone.sees("CALL_ESTABLISHED")
        phone.wait_to_hear(2)
    tab.can_dial()
    bob.does("hangup")
    for phone in (bob, other):
        phone.sees("CALL_CLOSED")
        assert frequency(phone.heard()) == pytest.approx(440, rel=0.05)
    assert rtpengine.calls() == []
