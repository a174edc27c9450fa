"""A user enrols in a real Chromium over a real `ramal up`, and the phone registers with what the page says."""

import dataclasses
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from ramal.processes import PackageMissing
from tests.e2e.conftest import DOMAIN, System, start_up
from tests.e2e.phones.browser import SECONDS, axe_source, chromium, serious_faults
from tests.kit.hashed_directory import HashedDirectory, hashed_directory
from tests.kit.phone import Phone
from tests.kit.wire import link

pytestmark = pytest.mark.e2e

PASSWORD = "canary-right"
NARROW = {"width": 390, "height": 844}


@dataclasses.dataclass
class Site:
    system: System
    directory: HashedDirectory

    def phone(self, name: str, password: str) -> Phone:
        return Phone(link("udp", self.system.at[0]["udp"], self.system.authority), name, password, DOMAIN)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with hashed_directory(tmp_path_factory.mktemp("hashed")) as directory:
        for name in ("maria", "joão", "guessed"):
            directory.add(name, PASSWORD, "ARGON2")
        running, system = start_up(tmp_path_factory.mktemp("enroll") / "data", **directory.variables())
        yield Site(system, directory)
        assert running.end() == 0
        assert "canary" not in running.output()
        assert "enrolment: enrolled" in running.output()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with chromium() as launch:
            yield launch()
    except PackageMissing as error:
        pytest.fail(f"{error} (`make test` does it, as root)", pytrace=False)


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return axe_source(tmp_path_factory.mktemp("axe"))


def opened(browser: Browser, site: Site, faults: list[str], **options: Any) -> Page:
    page = browser.new_context(**{"viewport": NARROW, "locale": "en-US", **options}).new_page()
    page.set_default_timeout(SECONDS)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(f"{site.system.http[0]}/enroll")
    expect(page.locator("#name")).to_be_focused()
    return page


def give(page: Page, name: str, password: str) -> None:
    page.locator("#name").fill(name)
    page.locator("#password").fill(password)
    page.locator("#enroll button").click()


def registers(phone: Phone, seconds: float = 5) -> None:
    until = time.monotonic() + seconds
    while (status := phone.registers(f"Contact: <{phone.contact}>").status) != 200:
        assert time.monotonic() < until, status
        time.sleep(0.2)


def fits(page: Page) -> None:
    width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= window


def test_a23_a_user_enrols_on_a_small_screen_and_the_phone_registers(
    site: Site, browser: Browser, axe: str, tmp_path: Path
) -> None:
    faults: list[str] = []
    page = opened(browser, site, faults)
    fits(page)
    assert serious_faults(page, axe) == []
    page.screenshot(path=tmp_path / "enroll.png")
    give(page, "maria", "wrong")
    expect(page.get_by_role("alert")).to_have_text("That is not the password of this user in the directory.")
    expect(page.locator("#password")).to_have_value("")
    with site.phone("maria", PASSWORD) as phone:
        assert phone.registers(f"Contact: <{phone.contact}>").status == 401
        give(page, "maria", PASSWORD)
        expect(page.locator("#done-title")).to_be_focused()
        expect(page.locator("#phone-password")).to_have_text("that of the directory")
        expect(page.get_by_role("alert")).to_be_hidden()
        registers(phone)
    fits(page)
    assert serious_faults(page, axe) == []
    page.screenshot(path=tmp_path / "enrolled.png")
    assert faults == []


def test_a_phone_password_is_shown_once_with_its_code_in_portuguese_and_in_the_dark(
    site: Site, browser: Browser, axe: str, tmp_path: Path
) -> None:
    faults: list[str] = []
    page = opened(browser, site, faults, locale="pt-BR", color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("lang", "pt-BR")
    page.get_by_label("Fazer uma senha só para o meu telefone").check()
    give(page, "joão", PASSWORD)
    expect(page.get_by_role("img", name="Código QR para um telefone")).to_be_visible()
    made = page.locator("#phone-password").inner_text()
    assert re.fullmatch(r"([a-z2-9]{4}-){5}[a-z2-9]{4}", made)
    fits(page)
    assert serious_faults(page, axe) == []
    page.screenshot(path=tmp_path / "phone-password.png")
    with site.phone("joão", made) as phone, site.phone("joão", PASSWORD) as other:
        registers(phone)
        assert other.registers(f"Contact: <{other.contact}>").status == 401
    page.get_by_role("button", name="Outra pessoa").click()
    assert made not in page.content()
    page.reload()
    assert made not in page.content()
    assert faults == []


def test_a23_whoever_guesses_is_told_to_wait(site: Site, browser: Browser) -> None:
    page = opened(browser, site, [], viewport={"width": 1280, "height": 800})
    for _ in range(5):
        give(page, "guessed", "wrong")
        expect(page.locator("#enroll button")).to_be_enabled()
        expect(page.get_by_role("alert")).to_be_visible()
    give(page, "guessed", PASSWORD)
    expect(page.get_by_role("alert")).to_have_text(re.compile(r"too many wrong passwords\. Try again in \d+ seconds"))
