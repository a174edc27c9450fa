"""What `make install` leaves out, and how it is had."""

import shlex
import sys
from importlib import metadata


def installing(extra: str) -> str:
    """The command that installs an extra of pyproject.toml into this Python, as pinned there.

    It names the packages: Ramal itself is on no index, and whoever took its name there could run anything here.
    """
    wanted = [text.partition(";") for text in metadata.requires("ramal") or ()]
    names = [name.strip() for name, _, marker in wanted if marker.split() == ["extra", "==", f'"{extra}"']]
    return shlex.join([sys.executable, "-m", "pip", "install", *names])
