"""Small files of lines that people and programs both change: one writer at a time, and whole or not at all."""

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path


def lines_of(path: Path) -> list[str]:
    """What stands there; octets that are no UTF-8 come back as they were."""
    return path.read_text("utf-8", "surrogateescape").splitlines()


@contextlib.contextmanager
def rewriting(path: Path, *, private: bool = False) -> Iterator[list[str]]:
    """Its lines, none without a file, to be changed in place; on the disk before they take the old file's place.

    A link stays one, owner and group stay, and so does the mode unless the file is `private`: then it is 0600, as that
    of a new one, which root makes for the directory's owner.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        old = path.stat() if path.exists() else None
        lines = lines_of(path) if old else []
        yield lines
        _replace(path, old, lines, private)
        os.fsync(lock)
    finally:
        os.close(lock)


def _replace(path: Path, old: os.stat_result | None, lines: list[str], private: bool) -> None:
    # mkstemp makes it with mode 0600.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{line}\n" for line in lines)
            if old:  # root may write it, and whoever read it still must
                os.fchown(descriptor, old.st_uid, old.st_gid)
                if not private:
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
