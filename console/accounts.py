"""The operators' file: who may log in to the console, as what, and by which password. One `name:role:hash` a line.

Hashes are argon2id's as `argon2-cffi` writes them (RFC 9106's second choice: 64 MiB, 3 passes). Read again when it has
changed; written by `ramal operator` to a new file that takes the old one's place, owner, mode and other lines. Where
there was none, it has mode 0600.
"""

import contextlib
import fcntl
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

log = logging.getLogger("ramal.console")

Role = Literal["read-only", "operator"]
"""`read-only` sees everything, `operator` may end registrations, too."""
ROLES: tuple[Role, ...] = get_args(Role)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SHORTEST = 8
"""Characters of a password at the least."""
LONGEST = 256
_HASHER = PasswordHasher()
_NOBODYS = _HASHER.hash("nobody's password")
"""Verified where there is no such operator: that takes as long as a wrong password."""


class Account(NamedTuple):
    """An operator."""

    name: str
    role: Role
    hash: str


class Accounts:
    """The operators of one file, as they are when asked; without a path there are none."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._accounts: Mapping[str, Account] = {}
        self._version: tuple[int, int, int] | None = None

    def get(self, name: str) -> Account | None:
        """The operator of this name."""
        self._refresh()
        return self._accounts.get(name)

    def __len__(self) -> int:
        self._refresh()
        return len(self._accounts)

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            if version != self._version:
                self._accounts = {account.name: account for account in _read(self._path)}
                self._version = version
        except FileNotFoundError:
            self._accounts, self._version = {}, None
        except OSError as error:
            # Nobody who was taken away stays because a disk fails.
            self._accounts, self._version = {}, None
            log.error("the operators' file cannot be read", extra={"path": str(self._path), "cause": str(error)})


def is_right(account: Account | None, password: str) -> bool:
    """Whether this is the operator's password. Takes 50 ms of a processor and 64 MiB, whether there is one or not."""
    try:
        _HASHER.verify(account.hash if account else _NOBODYS, password)
    except (VerificationError, InvalidHashError):
        return False
    return account is not None


def add(path: Path, name: str, role: Role, password: str) -> None:
    """Stores an operator, new or with a new role and password. Raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError("the name has letters, digits and . _ @ - only, at most 64 of them")
    if not SHORTEST <= len(password) <= LONGEST:
        raise ValueError(f"the password has fewer than {SHORTEST} or more than {LONGEST} characters")
    with _changing(path) as accounts:
        accounts[name] = Account(name, role, _HASHER.hash(password))


def remove(path: Path, name: str) -> bool:
    """Takes an operator away; False when there was none."""
    with _changing(path) as accounts:
        return accounts.pop(name, None) is not None


def listed(path: Path) -> list[Account]:
    """All operators by name; none when there is no file."""
    return sorted(_read(path)) if path.exists() else []


def _read(path: Path) -> Iterator[Account]:
    """The lines that are operators; the others are named by their number, never shown."""
    for number, line in enumerate(_lines(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if account := _account(line):
            yield account
        else:
            log.warning("a line of the operators' file is no operator", extra={"path": str(path), "line": number})


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "surrogateescape").splitlines()


def _account(line: str) -> Account | None:
    name, _, rest = line.strip().partition(":")
    role, _, hash_ = rest.partition(":")
    known = next((known for known in ROLES if known == role), None)
    if known is None or not NAME.fullmatch(name) or not hash_.startswith("$argon2"):
        return None
    return Account(name, known, hash_)


def _changed(lines: list[str], accounts: dict[str, Account]) -> Iterator[str]:
    """The lines with the operators as they are now, each in its place; those that are no operator stay."""
    left = dict(accounts)
    for line in lines:
        was = _account(line)
        if was is None:
            yield line
        elif now := left.pop(was.name, None):
            yield ":".join(now)
    yield from (":".join(account) for account in left.values())


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[dict[str, Account]]:
    """The operators to change; one writer at a time, on the disk before it takes the old file's place."""
    path = path.resolve()  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        old = path.stat() if path.exists() else None
        lines = _lines(path) if old else []
        accounts = {account.name: account for account in listed(path)}
        yield accounts
        # mkstemp makes it with mode 0600.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(f"{line}\n" for line in _changed(lines, accounts))
                if old:  # root may write it, and whoever read it still must
                    os.fchown(descriptor, old.st_uid, old.st_gid)
                    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
                elif os.geteuid() == 0:
                    there = path.parent.stat()
                    os.fchown(descriptor, there.st_uid, there.st_gid)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        os.fsync(lock)
    finally:
        os.close(lock)
