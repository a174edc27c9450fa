"""The first lines of `ramal`: what may go wrong before anything else is there."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Runs the command line. Ctrl-C ends it at once and in silence, also while it is still being loaded."""
    try:
        _open_what_is_closed()
        from ramal.cli import main as typed

        typed()
    except KeyboardInterrupt:
        sys.exit(130)


def _open_what_is_closed() -> None:
    """Where a shell has closed standard input or output (`>&-`), the next file that is opened would take its place."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    nothing = Path(os.devnull)
    sys.stdin = sys.stdin or nothing.open()
    sys.stdout = sys.stdout or nothing.open("w")
    sys.stderr = sys.stderr or nothing.open("w")
