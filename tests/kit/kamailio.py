"""A real Kamailio: with tables of its own, which `ramal import` is tried with, or beside Ramal on Ramal's.

Users, aliases and groups come from `kamctl`, registrations and calls from phones.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql

from ramal.processes import find, free_port
from tests.kit.phone import Phone
from tests.kit.wire import Address, UdpLink

SCHEMAS = Path("/usr/share/kamailio/mysql")
PARTS = ("standard", "usrloc", "auth_db", "alias_db", "domain", "group", "acc")
PARTIES = ("src_user", "src_domain", "src_ip", "dst_ouser", "dst_user", "dst_domain")
_CONFIG = """\
#!KAMAILIO
debug=1
log_stderror=yes
fork=yes
children=2
listen=udp:127.0.0.1:{port}
alias="example.test"
alias="elsewhere.test"
auto_aliases=no
disable_tcp=yes
dns=off
rev_dns=off
loadmodule "db_mysql.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
loadmodule "auth_db.so"
loadmodule "acc.so"
loadmodule "nathelper.so"
modparam("rr", "append_fromtag", 1)
modparam("usrloc|auth_db|acc", "db_url", "{url}")
modparam("usrloc", "db_mode", 1)
modparam("usrloc", "use_domain", 1)
modparam("nathelper", "received_avp", "$avp(received)")
modparam("registrar", "received_avp", "$avp(received)")
modparam("registrar", "default_expires", 3600)
modparam("auth_db", "calculate_ha1", 0)
modparam("auth_db", "password_column", "ha1")
modparam("auth_db", "use_domain", 1)
modparam("acc", "db_flag", 1)
modparam("acc", "db_missed_flag", 2)
modparam("acc", "failed_transaction_flag", 3)
modparam("acc", "report_cancels", 0)
modparam("acc", "detect_direction", 0)
modparam("acc", "db_extra", "src_user=$fU;src_domain=$fd;src_ip=$si;dst_ouser=$tU;dst_user=$tU;dst_domain=$td")
request_route {{
    if (is_method("OPTIONS")) {{ sl_send_reply("200", "OK"); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{
            if (is_method("BYE")) {{ setflag(1); setflag(3); }}
            t_relay();
        }} else if (is_method("ACK") && t_check_trans()) {{
            t_relay();
        }}
        exit;
    }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
    if (is_method("ACK")) {{ t_check_trans(); exit; }}
    t_check_trans();
    if (!auth_check("$fd", "subscriber", "1")) {{ auth_challenge("$fd", "1"); exit; }}
    if (is_method("REGISTER")) {{
        if ($tU == "nadia") {{ fix_nated_register(); }}
        save("location");
        exit;
    }}
    consume_credentials();
    record_route();
    setflag(1);
    setflag(3);
    if (!lookup("location")) {{ send_reply("404", "Not Found"); exit; }}
    setflag(2);
    t_relay();
}}
"""


class Kamailio:
    """A running Kamailio: where phones reach it, and its database."""

    def __init__(self, address: Address, connection: "pymysql.Connection[pymysql.cursors.Cursor]", home: Path) -> None:
        self.address = address
        self._connection = connection
        self._home = home

    def kamctl(self, *words: str) -> None:
        """A command of Kamailio's own administration."""
        environ = {**os.environ, "HOME": str(self._home)}
        done = subprocess.run(["kamctl", *words], env=environ, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "ERROR" not in done.stderr, done.stderr

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Rows of a statement in its database."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def wait_for(self, statement: str, rows: int) -> None:
        """Waits until a statement gives so many rows."""
        until = time.monotonic() + 15
        while len(found := self.sql(statement)) < rows:
            assert time.monotonic() < until, found
            time.sleep(0.1)


@contextmanager
def kamailio(directory: Path, host: str, port: int, user: str, password: str, database: str) -> Iterator[Kamailio]:
    """Serves on loopback, with a new database of this name that is dropped at the end."""
    connection = pymysql.connect(host=host, port=port, user=user, password=password, autocommit=True)
    sip = free_port()
    with connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
        cursor.execute(f"USE {database}")
        for part in PARTS:
            text = (SCHEMAS / f"{part}-create.sql").read_text()
            for statement in filter(str.strip, text.split(";\n")):
                cursor.execute(statement)
        # What Kamailio's documents advise for accounting.
        columns = ", ".join(f"ADD COLUMN {name} VARCHAR(64) NOT NULL DEFAULT ''" for name in PARTIES)
        cursor.execute(f"ALTER TABLE acc {columns}")
        cursor.execute(f"ALTER TABLE missed_calls {columns}")
        url = f"mysql://{user}:{password}@{host}:{port}/{database}"
        (directory / "kamailio.cfg").write_text(_CONFIG.format(port=sip, url=url))
        (directory / ".kamctlrc").write_text(
            f"SIP_DOMAIN=example.test\nDBENGINE=MYSQL\nDBHOST={host}\nDBPORT={port}\nDBNAME={database}\n"
            f"DBRWUSER={user}\nDBRWPW={password}\nDBROUSER={user}\nDBROPW={password}\n"
            "STORE_PLAINTEXT_PW=0\nALIASES_TYPE=DB\nACL_GROUPS='local long'\nVERIFY_ACL=1\nCTLENGINE=NONE\n"
        )
        try:
            with _running(directory):
                yield Kamailio(("127.0.0.1", sip), connection, directory)
        finally:
            cursor.execute(f"DROP DATABASE {database}")


@contextmanager
def _running(directory: Path) -> Iterator[None]:
    """Kamailio with `kamailio.cfg` of this directory; what it says is in `kamailio.log`."""
    program = find("kamailio", "kamailio")
    with (directory / "kamailio.log").open("wb") as out:
        process = subprocess.Popen(
            [program, "-DD", "-E", "-m", "64", "-M", "8", "-f", str(directory / "kamailio.cfg"),
             "-P", str(directory / "kamailio.pid"), "-Y", str(directory), "-w", str(directory)],
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


_BESIDE = """\
#!KAMAILIO
debug=2
log_stderror=yes
fork=yes
children=2
listen=udp:{host}:{port}
auto_aliases=no
disable_tcp=yes
dns=off
rev_dns=off
loadmodule "db_mysql.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
{parameters}
request_route {{
    if (is_method("OPTIONS")) {{ sl_send_reply("200", "OK"); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); }} else if (is_method("ACK") && t_check_trans()) {{ t_relay(); }}
        exit;
    }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
    if (is_method("ACK")) {{ t_check_trans(); exit; }}
    t_check_trans();
    record_route();
    if ($rU == "changed") {{
        # A Path that no edge has made.
        remove_hf("Route");
        append_hf("Route: $hdr(X-Path)\\r\\n");
        $ru = "sip:bob@192.0.2.1";
        $du = $hdr(X-Edge);
        t_relay();
        exit;
    }}
    if (!lookup("location")) {{ send_reply("404", "Not Found"); exit; }}
    t_relay();
}}
"""


@contextmanager
def beside(directory: Path, host: str, parameters: str) -> Iterator[Address]:
    """A Kamailio that calls whom `usrloc` finds, with these `modparam` lines; where it listens."""
    port = free_port()
    (directory / "kamailio.cfg").write_text(_BESIDE.format(host=host, port=port, parameters=parameters))
    address = host, port
    with _running(directory):
        with Phone(UdpLink(address), "x", "", host) as phone:
            assert phone.ask("OPTIONS", f"sip:{host}:{port}").status == 200
        yield address
