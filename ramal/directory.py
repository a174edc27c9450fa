"""The directory of an embedded system: who holds it, its keys, what it was last started with, the first passwords."""

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ramal.processes import StartFailed
from runtime.errors import ConfigError

DATABASE = "ramal.db"
USERS = "users.htdigest"
OPERATORS = "operators"
KEYS = "keys"
ENROLMENT_KEYS = "enrolment-keys"
STARTED = "settings.json"
PASSWORDS = "first-passwords.json"  # a file's name


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Holds the directory for this process; raises StartFailed where another has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (directory / "lock").open("a")
    except OSError as error:
        raise StartFailed(f"{directory}: {_why(error)}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartFailed(f"{directory}: another Ramal runs there; end it, or choose another directory") from None
        yield


def _why(error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "there is a file of that name, and no directory"
    return f"cannot be made or written: {error.strerror}"


def is_held(directory: Path) -> bool:
    """Whether a Ramal runs in this directory, which is there."""
    try:
        with only_one(directory):
            return False
    except StartFailed:
        return True


def generated_keys(path: Path) -> str:
    """The HMAC keys of this system, made at the first call; the file's mode is 0600."""
    if not path.exists():
        _write(path, f"k1:{secrets.token_hex(32)}\n")
    return kept_keys(path)


def make_enrolment_keys(path: Path) -> None:
    """Makes the first key that seals what enrolment stores, where there is none; the file's mode is 0600."""
    if not path.exists():
        _write(path, f"e1:{secrets.token_hex(32)}\n")


def kept_keys(path: Path) -> str:
    """The same where they have been made; else empty."""
    return path.read_text().strip() if path.exists() else ""


def started_with(directory: Path) -> dict[str, dict[str, Any]]:
    """The settings that it was last started with, secrets masked, by section; none if it never was."""
    return _read(directory / STARTED)


def remember_settings(directory: Path, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Keeps what it is started with, for commands from another terminal; no secret may be in it."""
    _write(directory / STARTED, json.dumps(settings, indent=1))


def first_passwords(directory: Path) -> dict[str, str]:
    """Passwords of our making that nobody has used yet, by user."""
    return {name: str(password) for name, password in _read(directory / PASSWORDS).items()}


def keep_first_passwords(directory: Path, passwords: Mapping[str, str]) -> None:
    """Keeps those that are still to be shown; the file goes with the last."""
    if passwords:
        _write(directory / PASSWORDS, json.dumps(passwords))
    else:
        (directory / PASSWORDS).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read: {error}; it may be deleted") from error
    return dict(read)


def _write(path: Path, text: str) -> None:
    """Puts a file with mode 0600 in the place of the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".new")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.rename(path)
