"""The users file of an embedded system: htdigest's format, `user:realm:MD5-HA1[:SHA-256-HA1:SHA-512-256-HA1]`.

Read whole into memory and again when it has changed. Written by `ramal user`: to a new file that takes the
old one's place, mode 0600, so that a reader sees the old users or the new ones.
"""

import contextlib
import logging
from collections.abc import Collection, Iterator
from pathlib import Path

from authsvc.users.ha1 import ALGORITHMS, User, from_ha1s, from_password
from runtime.errors import Unavailable
from runtime.rewriting import lines_of, rewriting

log = logging.getLogger("ramal.authsvc")

MISSING = "is not there (if it is to have no users, make an empty one)"
CHECK_SECONDS = 0.5
"""A change is seen at most this much later."""


class UsersFileUnavailable(Unavailable):
    """The file is not there, or not to be read."""


class UsersFile:
    """The users of one file, as they were when it was last looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._users: dict[tuple[str, str], User] = {}
        self._version: tuple[int, int, int] | None = None
        self._next_check = float("-inf")
        self.lost = ""
        """Why it cannot be said whose line is in it; "" while it can."""

    def get(self, key: tuple[str, str]) -> User | None:
        """The user of this name and realm."""
        return self._users.get(key)

    def among(self, keys: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these users that it has. Raises UsersFileUnavailable: the file could not be read."""
        if self.lost:
            raise UsersFileUnavailable(self.lost)
        return {key for key in keys if key in self._users}

    def refresh(self, now: float) -> None:
        """Reads the file again if it changed, `now` in monotonic seconds.

        One that is not there has no users, and says of nobody that he has left: it may be a disk that is not mounted.
        """
        if now < self._next_check:
            return
        self._next_check = now + CHECK_SECONDS
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._lose(MISSING)
            self._users, self._version = {}, None
            return
        except OSError as error:
            self._unreadable(error)
            return
        self.lost = ""
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        if version == self._version:
            return
        if status.st_mode & 0o077:
            log.warning("others may read the users file; its mode should be 0600", extra={"path": str(self._path)})
        try:
            self._users = dict(_read(self._path))
        except OSError as error:
            self._unreadable(error)
            return
        self._version = version

    def _unreadable(self, error: OSError) -> None:
        self._lose(f"cannot be read: {error.strerror}")

    def _lose(self, why: str) -> None:
        why = f"the users file {self._path} {why}"
        if why != self.lost:
            log.warning("nobody can say who is in the users file", extra={"cause": why})
        self.lost = why


def add_user(path: Path, name: str, realm: str, password: str) -> None:
    """Stores the HA1s of a user, new or with a new password. ValueError: the format has no room for such a name."""
    if any(c in text for text in (name, realm) for c in ":\r\n") or not name or not realm:
        raise ValueError("a user's name and domain are not empty and have no colon or line break")
    with _changing(path) as users:
        users[name, realm] = from_password(name, realm, password)


def remove_user(path: Path, name: str, realm: str) -> bool:
    """Removes a user; False when there was none."""
    with _changing(path) as users:
        return users.pop((name, realm), None) is not None


def list_users(path: Path) -> list[tuple[str, str]]:
    """Name and realm of every user, in order; none when there is no file."""
    try:
        return sorted((key for key, _ in _read(path)), key=lambda key: (key[1], key[0]))
    except FileNotFoundError:
        return []


def _read(path: Path) -> Iterator[tuple[tuple[str, str], User]]:
    return _among(lines_of(path), path)


def _among(lines: list[str], path: Path) -> Iterator[tuple[tuple[str, str], User]]:
    """The lines that are users; the others are named by their number, never shown."""
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.rstrip().split(":")
        user = from_ha1s(dict(zip(ALGORITHMS, fields[2:], strict=False)))
        if len(fields) not in (3, 5) or user == User():
            log.warning("a line of the users file is no user", extra={"path": str(path), "line": number})
            continue
        yield (fields[0], fields[1]), user


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[dict[tuple[str, str], User]]:
    """The users to change."""
    with rewriting(path, private=True) as lines:
        users = dict(_among(lines, path))
        yield users
        lines[:] = [
            ":".join((name, realm, *(user.ha1(algorithm) or "" for algorithm in ALGORITHMS)))
            for (name, realm), user in users.items()
        ]
