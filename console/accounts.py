"""The operators' file: who may log in to the console, as what, and by which password. One `name:role:hash` a line,
and behind another colon, where sessions were ended by `ramal operator log-out`, a text that no session before knew.

Hashes are argon2id's as `argon2-cffi` writes them (RFC 9106's second choice: 64 MiB, 3 passes). Read again when it has
changed; `ramal operator` keeps its other lines.
"""

import contextlib
import functools
import logging
import re
import secrets
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from console.config import ROLES, Role
from runtime.rewriting import lines_of, rewriting

log = logging.getLogger("ramal.console")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SHORTEST = 8
"""Characters of a password at the least."""
LONGEST = 256
_HASHER = PasswordHasher()


class Account(NamedTuple):
    """An operator."""

    name: str
    role: Role
    proof: str
    """What he is known by: the hash of his password, and what ended his sessions; of one of a directory, his entry and
    his password's age. Another proof is another person: sessions end."""


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

    def names(self) -> Set[str]:
        """Of all of them."""
        self._refresh()
        return self._accounts.keys()

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


@functools.cache
def _nobodys() -> str:
    """Verified where there is no such operator: that takes as long as a wrong password."""
    return _HASHER.hash("nobody's password")  # not while the module is loaded, which every command does


def is_right(account: Account | None, password: str) -> bool:
    """Whether this is the operator's password. Takes 50 ms of a processor and 64 MiB, whether there is one or not."""
    nobodys = _nobodys()  # whoever asks first waits for it, be there an operator or not
    try:
        _HASHER.verify(account.proof.partition(":")[0] if account else nobodys, password)
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


def log_out(path: Path, name: str) -> bool:
    """Ends an operator's sessions, whatever console they are of; False when there is no such operator."""
    with _changing(path) as accounts:
        if account := accounts.get(name):
            hash_ = account.proof.partition(":")[0]
            accounts[name] = account._replace(proof=f"{hash_}:{secrets.token_hex(8)}")
    return account is not None


def listed(path: Path) -> list[Account]:
    """All operators by name; none when there is no file."""
    return sorted(_read(path)) if path.exists() else []


def _read(path: Path) -> Iterator[Account]:
    return _among(lines_of(path), path)


def _among(lines: list[str], path: Path) -> Iterator[Account]:
    """The lines that are operators; the others are named by their number, never shown."""
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if account := _account(line):
            yield account
        else:
            log.warning("a line of the operators' file is no operator", extra={"path": str(path), "line": number})


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
    """The operators to change."""
    with rewriting(path) as lines:
        accounts = {account.name: account for account in _among(lines, path)}
        yield accounts
        lines[:] = list(_changed(lines, accounts))
