"""How long the console's pages take to open in Chromium, beside 100,000 registrations and 10,000 calls, on loopback.

From the address typed until the first row, chart or card is seen; `ramal up`, its file filled, nothing kept by the
browser but the files.

.venv/bin/python bench/pages.py
"""

import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from console.accounts import add
from tests.e2e.conftest import start_up
from tests.e2e.phones.browser import chromium
from tests.kit.console_rows import MINUTE, fill

REGISTRATIONS, CALLS = 100_000, 10_000
TIMES = 7
NAME, PASSWORD = "maria", "correct horse"
ROW, CARD = ".spacer .line", "#view .card"
PAGES = {
    "registrations": ("registrations", ROW),
    "as of half an hour ago": ("registrations?at={then}", ROW),
    "a search": ("registrations?search=user00099", ROW),
    "a user": ("registrations/user000123@example.test", CARD),
    "calls": ("calls", ROW),
    "a call": (f"calls/{1_000_000 << 10}", CARD),
    "statistics": ("statistics", ".chart canvas"),
    "health": ("health", ".state"),
}


def main() -> None:
    directory = Path(tempfile.mkdtemp()) / "data"
    add(directory / "operators", NAME, "operator", PASSWORD)
    running, system = start_up(directory)
    now = int(time.time() * 1000)
    fill(directory / "ramal.db", now, registrations=REGISTRATIONS, calls=CALLS)
    base = f"{system.http[0]}/console/"
    try:
        with chromium() as launch:
            page = launch().new_context(viewport={"width": 1280, "height": 800}).new_page()
            page.goto(base)
            page.locator("#name").fill(NAME)
            page.locator("#password").fill(PASSWORD)
            page.locator("#log-in button").click()
            page.locator(ROW).first.wait_for()
            for name, (where, wanted) in PAGES.items():
                took = []
                for _ in range(TIMES):
                    page.goto("about:blank")
                    begun = time.monotonic()
                    page.goto(f"{base}#/{where.format(then=now - 30 * MINUTE)}")
                    page.locator(wanted).first.wait_for()
                    took.append((time.monotonic() - begun) * 1000)
                middle, load = statistics.median(took), os.getloadavg()[0]
                sys.stdout.write(f"{name:23} median {middle:4.0f} ms, longest {max(took):4.0f} ms, load {load:.1f}\n")
    finally:
        running.end(signal.SIGINT)


if __name__ == "__main__":
    main()
