"""The softphone page in a real Chromium, used as a person does: by what its fields and buttons are called."""

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from ramal.processes import find

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
)
ALLOWED = "--use-fake-ui-for-media-stream"
REFUSED = "--use-fake-ui-for-media-stream=deny"
NO_CAMERA = "--use-fake-device-for-media-stream=device-count=0"
SECONDS = 20_000
"""Of any wait, in milliseconds: more than a slow machine needs."""

WEB = Path(__file__).parents[3] / "console" / "web"

_CONNECTIONS = """
window.connections = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...given) { super(...given); window.connections.push(this); }
};
"""
_RECEIVED = """
async () => {
  const received = {};
  for (const connection of window.connections) {
    for (const report of (await connection.getStats()).values()) {
      if (report.type === "inbound-rtp") received[report.kind] = (received[report.kind] ?? 0) + report.bytesReceived;
    }
  }
  return received;
}
"""


def axe_source(directory: Path) -> str:
    """The accessibility checker, of the version in the lock file, fetched into this directory."""
    lock = json.loads((WEB / "package-lock.json").read_text())["packages"]["node_modules/axe-core"]
    (directory / "package.json").write_text(json.dumps({"dependencies": {"axe-core": lock["version"]}}))
    words = [find("npm", "npm"), "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    subprocess.run(words, cwd=directory, check=True, capture_output=True, timeout=120)
    return (directory / "node_modules" / "axe-core" / "axe.min.js").read_text()


def serious_faults(page: Page, axe: str) -> list[str]:
    """What an accessibility checker finds that is serious or worse."""
    page.evaluate(axe)
    found = page.evaluate("axe.run().then((found) => found.violations)")
    return [
        f"{each['id']}: {node['html'][:200]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@contextlib.contextmanager
def chromium(program: str = "") -> Iterator[Callable[..., Browser]]:
    """Starts Debian's Chromium with these flags, as often as called, with a camera and microphone that are made up.

    `program`: what starts it instead. Raises PackageMissing.
    """
    path = program or find("chromium", "chromium")
    with sync_playwright() as playwright:
        yield lambda *flags: playwright.chromium.launch(executable_path=path, args=[*FLAGS, *flags])


class Softphone:
    """One tab. Its labels are English; `page` is there for what they do not reach."""

    def __init__(self, browser: Browser, base: str, language: str = "en-US", *, unknown: bool = False) -> None:
        """`unknown`: as somebody who opens the page although nobody vouches for its certificate."""
        self.context = browser.new_context(locale=language, ignore_https_errors=unknown)
        self.context.set_default_timeout(SECONDS)
        self.context.add_init_script(_CONNECTIONS)
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        """What the page threw or the browser refused it (its Content-Security-Policy among others)."""
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._heard)
        self.page.goto(base)

    def _heard(self, message: ConsoleMessage) -> None:
        # Chromium says of each failed WebSocket that it failed; that is for the user to be told, not a fault.
        if message.type == "error" and "WebSocket connection" not in message.text:
            self.faults.append(message.text)

    def close(self) -> None:
        self.context.close()

    def type_credentials(self, name: str, password: str) -> None:
        """Fills the form in and sends it."""
        self.page.get_by_label("User").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.click("Sign in")

    def register(self, name: str, password: str) -> None:
        """Registers, and waits until it is done."""
        self.type_credentials(name, password)
        self.sees("Signed in")

    def call(self, callee: str, *, video: bool = False) -> None:
        """Dials."""
        self.page.get_by_label("Whom do you want to call?").fill(callee)
        self.click("Video call" if video else "Audio call")

    def click(self, name: str) -> None:
        """Presses a button."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def has_button(self, name: str) -> None:
        """Waits until there is such a button."""
        expect(self.page.get_by_role("button", name=name, exact=True)).to_be_visible(timeout=SECONDS)

    def sees(self, text: str) -> None:
        """Waits until it is told this, where a screen reader would say it too."""
        expect(self.page.get_by_role("status").filter(has_text=text)).to_be_visible(timeout=SECONDS)

    def is_warned(self, text: str) -> None:
        """Waits until it is warned of this."""
        expect(self.page.get_by_role("alert")).to_have_text(text, timeout=SECONDS)

    def can_dial(self) -> None:
        """Waits until no call is there any more."""
        self.has_button("Audio call")

    def received(self) -> dict[str, int]:
        """Octets of RTP so far, by `audio` and `video`."""
        found: dict[str, int] = self.page.evaluate(_RECEIVED)
        return found

    def hears(self, *kinds: str) -> None:
        """Waits until RTP of each kind comes in, and goes on coming."""
        for _ in range(2):
            before = self.received()
            self.page.wait_for_function(
                f"async ([kinds, before]) => {{ const now = await ({_RECEIVED})();"
                " return kinds.every((kind) => (now[kind] ?? 0) > (before[kind] ?? 0)); }",
                arg=[kinds, before],
                timeout=SECONDS,
            )

    def picture(self, path: Path) -> None:
        """A screenshot."""
        self.page.screenshot(path=path)

    def stored(self) -> Any:
        """All that the page has left in the browser."""
        return self.page.evaluate(
            "async () => [localStorage.length, sessionStorage.length, document.cookie,"
            " (await indexedDB.databases()).length, (await caches.keys()).length]"
        )
