"""Builds Ramal: wheels have the pure core compiled by mypyc, where that can be done. All else is in pyproject.toml.

`RAMAL_COMPILE=1` insists on it, `RAMAL_COMPILE=0` leaves it out. Without either it is tried; where there is no C
compiler or no header of Python, or where compiling fails, the same modules run as they are, and the build says why (pip
shows it with `--verbose`). An editable installation runs the sources.
"""

import atexit
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
WISH = os.environ.get("RAMAL_COMPILE", "")
TOOLS = ["mypy[mypyc]>=1.14", "msgspec>=0.19"]
"""mypyc, and whose types it reads."""
PACKAGES = ("sipcore", "edge/core")
"""What is pure and hot. Tried and left out, for nothing was won: events.wire, cdr.decider, cdr.rows, Kafka's lane."""
STRUCT = re.compile(r"^class \w+\(\s*msgspec\.Struct\b", re.MULTILINE)
"""mypyc drops `frozen=True` and the like of a base class that it has not compiled: such modules stay as they are."""


def say(what: str) -> None:
    """One line for whoever installs."""
    print(f"ramal: {what}", flush=True)  # noqa: T201


def pure() -> list[str]:
    """The modules that are compiled."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.name != "__init__.py" and not STRUCT.search(path.read_text(encoding="utf-8"))
    ]


def hindrance() -> str:
    """Why nothing can be compiled; "" if it can."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler}); Debian: apt-get install gcc libc6-dev"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "there is no Python.h; Debian: apt-get install python3-dev"
    return ""


def why_not() -> str:
    """Why nothing is compiled; "" if it is. Whoever insists learns of a hindrance by what the compiler says."""
    if WISH == "0":
        return "RAMAL_COMPILE=0"
    return "" if WISH == "1" else hindrance()


def compiled(folder: str) -> list[Extension]:
    """The extension modules, as C in a folder; none, if that fails and nobody insists."""
    modules = pure()
    words = ["--config-file=", "--cache-dir=/dev/null", "--ignore-missing-imports", *modules]
    try:
        from mypyc.build import mypycify

        found = mypycify(words, opt_level="2", debug_level="0", multi_file=True, target_dir=folder)
    except (Exception, SystemExit) as error:  # a mypyc of another day, or none
        if WISH == "1":
            raise
        say(f"the core is not compiled: mypyc: {type(error).__name__} {error}")
        return []
    for extension in found:
        extension.extra_compile_args.append("-Wno-error")  # mypyc's -Werror: another compiler warns of other things
    say(f"compiling {len(modules)} modules of the core, a minute's work")
    return list(found)


class BuildCore(build_ext):
    """Falls back to the sources where the C compiler fails."""

    def run(self) -> None:
        """Compiles; what was made of a part of it is taken away again."""
        try:
            super().run()
        except Exception as error:
            if WISH == "1":
                raise
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []
            say(f"the core is not compiled: {error}")
        else:
            if self.extensions:
                say("the core is compiled")


def main() -> None:
    """What setuptools asks for; only for a wheel is anything compiled."""
    reason, extensions, options = why_not(), [], {}
    if "bdist_wheel" in sys.argv:
        # A folder of its own: what an earlier build has left in ./build would become a part of the wheel.
        folder = tempfile.mkdtemp(prefix="ramal-build-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        options = {"build": {"build_base": folder}}
        if reason:
            say(f"the core is not compiled: {reason}")
        else:
            extensions = compiled(folder)
    setup(
        ext_modules=extensions,
        cmdclass={"build_ext": BuildCore},
        options=options,
        setup_requires=[] if reason else TOOLS,  # so whoever compiles nothing fetches nothing
    )


if __name__ == "__main__":
    main()
