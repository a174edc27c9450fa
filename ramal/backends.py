"""Real Apache Kafka, MariaDB and OpenLDAP on loopback, for the stack, the tests and the benchmark.

Each starter returns when its server answers, keeps everything under the directory it is given, and started
again on the same directory serves the same content at the same port. They come from containers where an
engine answers (`ramal.containers`), else from the machine's packages.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ramal.containers import IMAGES, Image, why_not
from ramal.processes import Child, StartFailed, find, free_port, spawn, wait_ready

HOST = "127.0.0.1"
KAFKA = "4.3.1"
POM = Path(__file__).parent / "kafka" / "pom.xml"

_KAFKA_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={directory}/data
auto.create.topics.enable=false
# One node: nothing to wait for, nothing to spread.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
# The defaults of 3 and 8 are for many cores: each request wakes whichever thread has rested longest, whose caches are
# cold. Measured at 100 chains of four topics a second: a fifth less CPU, and no less at saturation.
num.network.threads=1
num.io.threads=1
# The default of 128 MiB is a quarter of this heap.
log.cleaner.dedupe.buffer.size=16777216
"""

_LOG4J = """\
status=warn
rootLogger.level=warn
rootLogger.appenderRef.stdout.ref=stdout
appender.stdout.type=Console
appender.stdout.name=stdout
appender.stdout.layout.type=PatternLayout
appender.stdout.layout.pattern=[%d] %p %m (%c)%n
"""

_MY_CNF = """\
[mariadbd]
datadir={directory}/data
socket={socket}
pid-file={directory}/mysqld.pid
tmpdir={directory}
init-file={directory}/init.sql
bind-address={host}
port={port}
skip-name-resolve
skip-log-bin
max_connections=200
character-set-server=utf8mb4
# A commit is on the disk when it is acknowledged: the promise of a 200 OK stands on it.
innodb_flush_log_at_trx_commit=1
innodb_buffer_pool_size=256M
"""

ACCOUNT = """\
CREATE USER IF NOT EXISTS 'ramal'@'%' IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO 'ramal'@'%';
CREATE DATABASE IF NOT EXISTS ramal CHARACTER SET utf8mb4;
"""

_SLAPD_CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {directory}/slapd.pid
argsfile {directory}/slapd.args
loglevel 0
threads 4
database mdb
maxsize 1073741824
suffix "{base}"
rootdn "{bind_dn}"
rootpw {password}
directory {directory}/data
index objectClass eq
index uid eq
access to attrs=userPassword by anonymous auth by * none
access to * by * read
"""


@dataclasses.dataclass(frozen=True)
class Server:
    """A backend that answers."""

    child: Child

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def log(self) -> Path:
        return self.child.log

    def alive(self) -> bool:
        """Whether its process still runs (a stopped one does)."""
        return self.child.alive()

    def stop(self) -> None:
        """Ends it within 10 s; its directory stays and can be started again."""
        self.child.stop()


@dataclasses.dataclass(frozen=True)
class KafkaServer(Server):
    """One broker; `bootstrap` is `host:port`."""

    bootstrap: str


@dataclasses.dataclass(frozen=True)
class MySQLServer(Server):
    """MariaDB, with a user who may do everything and one empty database at first."""

    host: str
    port: int
    user: str
    password: str = dataclasses.field(repr=False)
    database: str


@dataclasses.dataclass(frozen=True)
class LdapServer(Server):
    """OpenLDAP with users `u00000`… in `ou=Users,BASE`, each with the clear-text password `secret-u00000`…"""

    url: str
    base: str
    bind_dn: str
    bind_password: str = dataclasses.field(repr=False)
    users: int


class Packages:
    """Runs programs of this machine's packages."""

    def find(self, program: str, package: str) -> str:
        """Its path; raises PackageMissing."""
        return find(program, package)

    def run(self, command: Sequence[str], seconds: float = 120) -> None:
        """Runs a program to its end; raises StartFailed when that is no success."""
        _run(command, seconds)

    def spawn(self, name: str, command: Sequence[str], log: Path, cwd: Path) -> Child:
        """Starts a server; its output goes to `log`."""
        return spawn(name, command, log, cwd=cwd)


def _ground(kind: str, directory: Path) -> Packages | Image:
    """Where a backend's programs come from."""
    return Packages() if why_not(kind) else Image(IMAGES[kind], directory)


def origin(kind: str) -> str:
    """Where a backend comes from, and why, for people."""
    reason = why_not(kind)
    return f"this machine's packages ({reason})" if reason else f"the image {IMAGES[kind]}"


def user_name(number: int) -> str:
    """`u00000`, `u00001`, …"""
    return f"u{number:05d}"


def start_kafka(
    directory: Path, port: int | None = None, more: str = "", formatting: Sequence[str] = ()
) -> KafkaServer:
    """One KRaft node; returns when it answers a request (about 3 s). Raises StartFailed.

    `more` are further lines of its configuration, `formatting` further options of the storage tool.
    """
    ground = _ground("kafka", directory)
    java = ground.find("java", "default-jre-headless")
    jars = kafka_jars() if isinstance(ground, Packages) else Path("/opt/kafka/libs")
    kept = _remembered(directory, port=port, controller=None)
    properties = directory / "server.properties"
    properties.write_text(_KAFKA_PROPERTIES.format(host=HOST, directory=directory.resolve(), **kept) + more)
    (directory / "log4j2.properties").write_text(_LOG4J)
    java_command = [java, f"-Dlog4j2.configurationFile={directory.resolve()}/log4j2.properties", "-cp", f"{jars}/*"]
    if not (directory / "data" / "meta.properties").exists():
        quick = ["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        identity = secrets.token_hex(11)
        format_ = ["kafka.tools.StorageTool", "format", "-t", identity, "-c", str(properties), *formatting]
        ground.run([*java_command, *quick, *format_])
    child = ground.spawn(
        "kafka",
        [*java_command, "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "kafka.Kafka", str(properties)],
        directory / "kafka.log",
        directory,
    )
    wait_ready(child, lambda: _kafka_answers(kept["port"]), 60)
    return KafkaServer(child, f"{HOST}:{kept['port']}")


def start_mysql(directory: Path, port: int | None = None, more: str = "") -> MySQLServer:
    """MariaDB with durable commits; returns when it greets. Raises StartFailed.

    `more` are further lines of its configuration.
    """
    ground = _ground("mysql", directory)
    server = ground.find("mariadbd", "mariadb-server")
    install = ground.find("mariadb-install-db", "mariadb-server")
    kept = _remembered(directory, port=port)
    password = _password(directory)
    as_user = ["--user=root"] if os.geteuid() == 0 or isinstance(ground, Image) else []
    config = directory / "my.cnf"
    # A Unix socket's path has at most 107 bytes, and a directory may be deep; nothing of ours uses it.
    socket_name = f"@ramal-{kept['port']}"
    settings = _MY_CNF.format(host=HOST, directory=directory.resolve(), socket=socket_name, **kept)
    config.write_text(settings + more)
    init = directory / "init.sql"
    init.touch(mode=0o600)
    init.write_text(ACCOUNT.format(password=password))
    if not (directory / "data" / "mysql").exists():
        ground.run([install, f"--defaults-file={config}", "--auth-root-authentication-method=socket", *as_user])
    command = [server, f"--defaults-file={config}", *as_user]
    child = ground.spawn("mysql", command, directory / "mysql.log", directory)
    wait_ready(child, lambda: _mysql_greets(kept["port"]), 60)
    return MySQLServer(child, HOST, kept["port"], "ramal", password, "ramal")


def start_ldap(directory: Path, users: int = 1000, port: int | None = None, domain: str = "example.test") -> LdapServer:
    """OpenLDAP with that many users; returns when it answers. Raises StartFailed."""
    ground = _ground("ldap", directory)
    server = ground.find("slapd", "slapd")
    load = ground.find("slapadd", "slapd")
    kept = _remembered(directory, port=port)
    base = ",".join(f"dc={label}" for label in domain.split("."))
    bind_dn, password = f"cn=ramal,{base}", _password(directory)
    config = directory / "slapd.conf"
    config.touch(mode=0o600)
    config.write_text(_SLAPD_CONF.format(directory=directory.resolve(), base=base, bind_dn=bind_dn, password=password))
    content = directory / "content"
    wanted = f"{users} users below {base}\n"
    if not content.exists() or content.read_text() != wanted:
        shutil.rmtree(directory / "data", ignore_errors=True)
        (directory / "data").mkdir()
        ldif = directory / "users.ldif"
        ldif.touch(mode=0o600)
        ldif.write_text("".join(_ldif(base, users)))
        ground.run([load, "-q", "-f", str(config), "-l", str(ldif)])
        content.write_text(wanted)
    url = f"ldap://{HOST}:{kept['port']}"
    command = [server, "-d", "0", "-h", url, "-f", str(config)]
    child = ground.spawn("ldap", command, directory / "ldap.log", directory)
    wait_ready(child, lambda: _ldap_answers(kept["port"]), 30)
    return LdapServer(child, url, base, bind_dn, password, users)


def _ldif(base: str, users: int) -> Iterator[str]:
    top = base.partition(",")[0].partition("=")[2]
    yield f"dn: {base}\nobjectClass: dcObject\nobjectClass: organization\ndc: {top}\no: {top}\n\n"
    yield f"dn: ou=Users,{base}\nobjectClass: organizationalUnit\nou: Users\n\n"
    for number in range(users):
        name = user_name(number)
        yield (
            f"dn: uid={name},ou=Users,{base}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: User {name}\n"
            f"sn: {name}\ntelephoneNumber: {100_000 + number}\nuserPassword: secret-{name}\n\n"
        )


def cache() -> Path:
    """Where the broker's jars are kept: RAMAL_CACHE, else `.run` of the project, else the user's cache."""
    if named := os.environ.get("RAMAL_CACHE"):
        return Path(named).resolve()
    project = Path(__file__).resolve().parent.parent
    if (project / "pyproject.toml").exists():
        return project / ".run"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ramal"


def kafka_jars() -> Path:
    """The directory of Kafka's jars, fetched from Maven Central once per machine (43 MB). Raises StartFailed."""
    home = cache() / f"kafka-{KAFKA}"
    if home.exists():
        return home
    maven = find("mvn", "maven")
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f"kafka-{KAFKA}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            # Renamed when complete: an interrupted download leaves nothing that looks whole.
            partial = Path(tempfile.mkdtemp(prefix=f"kafka-{KAFKA}.", dir=home.parent))
            try:
                _run(
                    [
                        maven,
                        "-q",
                        "-B",
                        "-C",
                        "-f",
                        str(POM),
                        "dependency:copy-dependencies",
                        "-DincludeScope=runtime",
                        f"-DoutputDirectory={partial}",
                    ],
                    seconds=300,
                )
                partial.chmod(0o755)
                partial.rename(home)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return home


def _remembered(directory: Path, **ports: int | None) -> dict[str, int]:
    """The ports of this directory: as given, else as last time, else free ones."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "ports.json"
    kept: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    for name, port in ports.items():
        if port is not None:
            kept[name] = port
        elif name not in kept:
            kept[name] = free_port(HOST)
    path.write_text(json.dumps(kept))
    return kept


def _password(directory: Path) -> str:
    path = directory / "password"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(12))
    return path.read_text()


def _run(command: Sequence[str], seconds: float = 120) -> None:
    try:
        subprocess.run(  # noqa: S603  # the command is ours
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
        )
    except subprocess.CalledProcessError as error:
        said = error.stdout.decode(errors="replace").strip()[-2000:]
        raise StartFailed(f"{command[0]} failed with exit code {error.returncode}: {said}") from error
    except subprocess.TimeoutExpired as error:
        raise StartFailed(f"{command[0]} did not end within {seconds:.0f} s") from error


def _exchange(port: int, request: bytes) -> bytes:
    """The first bytes of the answer; none while the server is not there."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1.0) as connection:
        if request:
            connection.sendall(request)
        return connection.recv(64)
    return b""


def _kafka_answers(port: int) -> bool:
    """An ApiVersions request, version 0: the port accepts connections well before requests are served."""
    return bool(_exchange(port, struct.pack(">ihhih", 10, 18, 0, 1, -1)))


def _mysql_greets(port: int) -> bool:
    """The server's first packet is protocol version 10; an error packet (too early) has 255 there."""
    return _exchange(port, b"")[4:5] == b"\x0a"


def _ldap_answers(port: int) -> bool:
    """An anonymous simple bind (RFC 4511 section 4.2), answered by a BindResponse with success."""
    return _exchange(port, bytes.fromhex("300c020101600702010304008000"))[5:10] == bytes.fromhex("61070a0100")
