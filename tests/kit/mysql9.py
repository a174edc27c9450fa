"""MySQL 9 out of Debian sid, as `.ci/mysql9` unpacks it: run by its own loader and libraries, installed nowhere."""

import os
from pathlib import Path

from ramal import backends
from ramal.backends import HOST, MySQLServer
from ramal.processes import spawn, wait_ready

_MY_CNF = """\
[mysqld]
basedir={home}/usr
lc-messages-dir={home}/usr/share/mysql
character-sets-dir={home}/usr/share/mysql/charsets
datadir={directory}/data
socket={directory}/mysqld.sock
pid-file={directory}/mysqld.pid
bind-address={host}
port={port}
secure-file-priv=NULL
mysqlx=OFF
skip-name-resolve
skip-log-bin
performance-schema=OFF
"""


def why_not() -> str:
    """Why there is no MySQL 9 here, for people; empty where there is one."""
    return "" if _home().exists() else "no MySQL 9 here: `make mysql9` unpacks it from Debian sid"


def start_mysql9(directory: Path, more: str = "") -> MySQLServer:
    """MySQL 9 with the user and the database of `start_mysql`; `more` are further lines of its configuration.

    Returns when it greets. Raises StartFailed.
    """
    home = _home()
    libraries = next(home.glob("usr/lib/*-linux-gnu"))
    server = [str(next(libraries.glob("ld-linux-*"))), "--library-path", str(libraries), str(home / "usr/sbin/mysqld")]
    as_user = ["--user=root"] if os.geteuid() == 0 else []
    kept = backends._remembered(directory, port=None)
    password = backends._password(directory)
    config = directory / "my.cnf"
    config.write_text(_MY_CNF.format(home=home, directory=directory.resolve(), host=HOST, **kept) + more)
    init = directory / "init.sql"
    init.touch(mode=0o600)
    init.write_text(backends.ACCOUNT.format(password=password))
    command = [*server, f"--defaults-file={config}", *as_user]
    if not (directory / "data" / "mysql").exists():
        backends._run([*command, "--initialize-insecure"])
    child = spawn("mysql9", [*command, f"--init-file={init}"], directory / "mysql9.log", cwd=directory)
    wait_ready(child, lambda: backends._mysql_greets(kept["port"]), 60)
    return MySQLServer(child, HOST, kept["port"], "ramal", password, "ramal")


def _home() -> Path:
    return backends.cache() / "mysql-9"
