"""Configuration: `RAMAL_…` variables over an optional `ramal.toml`, read once, typed.

Each service has one `msgspec.Struct` with a default for every field (in its `config.py`)
and a section name. Field `min_expires` of section `registrar` is `RAMAL_REGISTRAR_MIN_EXPIRES`
in the environment and `min_expires` under `[registrar]` in the file; the section "" has the
settings that all services share (`RAMAL_DOMAIN`). A field of type `Secret` may also be given
as a file: `RAMAL_MYSQL_PASSWORD_FILE`. Every error names the key.
"""

import dataclasses
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import msgspec

from runtime.errors import ConfigError
from runtime.kinds import meant, typed
from sipcore.errors import ParseError
from sipcore.uri import parse_uri

T = TypeVar("T", bound=msgspec.Struct)
PREFIX = "RAMAL_"
FILE = "_FILE"
"""What the name of a variable ends with that names a secret's file."""
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SERVICE_LINK = re.compile(r"RAMAL_\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)")
"""What Kubernetes sets for a Service whose name begins with `ramal-`, beside `…_PORT=tcp://…`: nobody's setting."""

_TOPIC_PREFIX = re.compile(r"[a-zA-Z0-9._-]{0,200}")
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_BROKER = re.compile(r"(?:[^\s\[\]:,/@]+|\[[0-9a-fA-F:.]+\])(?::(?P<port>\d{1,5}))?")

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
WholeSeconds = Annotated[int, msgspec.Meta(ge=1)]
Number = Annotated[int, msgspec.Meta(ge=0)]
Duration = Annotated[float, msgspec.Meta(ge=0)]
"""Seconds, of which 0 means none."""


class Secret(str):
    """A string that `ramal config` and repr() mask."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


class Files(Protocol):
    """The settings of TLS in a section: PEM files, each "" for none."""

    @property
    def ca_file(self) -> str: ...
    @property
    def certificate(self) -> str: ...
    @property
    def private_key(self) -> str: ...


def check_files(files: Files, section: str, wanted: bool, switch: str) -> None:
    """Raises ConfigError for files that would be of no use: without TLS, or a key without its certificate."""
    for name in ("ca_file", "certificate", "private_key"):
        if getattr(files, name) and not wanted:
            raise ConfigError(f"RAMAL_{section}_{name.upper()}: is of no use without {switch}")
    if files.private_key and not files.certificate:
        raise ConfigError(f"RAMAL_{section}_CERTIFICATE: is not set, but RAMAL_{section}_PRIVATE_KEY is")


class Domain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of one SIP domain; `[domains."example.test"]` in the file. The realm is the domain's name."""

    algorithms: Annotated[tuple[Literal["MD5", "SHA-256", "SHA-512-256"], ...], msgspec.Meta(min_length=1)] = ("MD5",)
    """Offered in this order: `MD5`, `SHA-256`, `SHA-512-256`. MD5 alone is what every phone knows."""
    thesis_mode: bool = False
    """404 for an unknown user, 401 for a wrong password, 500 for an LDAP failure."""
    redirect: bool = False
    """Calls to users are answered 302 with their contacts instead of being forwarded."""
    media: Literal["direct", "bridge", "relay"] = "direct"
    """Whether rtpengine stands between the phones of a call: `direct`, never; `bridge`, only between WebRTC and
    others; `relay`, always."""
    country: str = ""
    """Country code of telephone numbers that are dialled without `+`: `55`."""
    area: str = ""
    """Area code of numbers that are dialled without a country's: with country 55 and area 48, 4833812800 and
    554833812800 are +554833812800. Fewer than six digits behind the area code are an extension."""


class Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all services share; section ""."""

    domain: str = "example.test"
    """The default SIP domain and realm."""
    domains: dict[str, Domain] = {}
    """Further domains, and settings per domain."""
    topic_prefix: str = "ramal."
    """Before the name of every topic and group."""
    partitions: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 4
    """Of every topic that has no count of its own; fixed once the topics are made."""
    keys: Secret = Secret()
    """HMAC keys of nonces and flow tokens: `ID:HEX[,ID:HEX…]`, at least 16 bytes each; the first signs,
    all verify. Every edge and authsvc of one system has the same; there is no default."""
    nonce_seconds: WholeSeconds = 300
    """Life of a nonce: edges and authsvc must agree on it, so that an aged one is refused at both;
    at most 1800."""
    http_host: str = "127.0.0.1"
    """Where health, readiness and metrics are served: where no phone can reach it."""
    http_port: Port = 0
    """The port of health, readiness and metrics; 0: any free port."""
    setup_seconds: Duration = 60.0
    """For how long `ramal topics` and `ramal migrate` wait for Kafka and MySQL that are not there yet."""
    log_level: str = "INFO"
    """`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`."""
    name: str = ""
    """This process's name in the log, in leases and, if it is set, in consumer groups: unique among the processes of
    a service, the same after a restart. The host's name by default, but not in groups."""

    def __post_init__(self) -> None:
        """Raises ConfigError where a name is none."""
        if self.log_level.upper() not in LEVELS:
            raise ConfigError(f"RAMAL_LOG_LEVEL: {self.log_level!r} is none of {', '.join(LEVELS)}")
        if not _TOPIC_PREFIX.fullmatch(self.topic_prefix):
            raise ConfigError(
                f"RAMAL_TOPIC_PREFIX: {self.topic_prefix!r} cannot begin a topic's name:"
                " up to 200 letters, digits and any of ._- can"
            )
        for key, name in [("RAMAL_DOMAIN", self.domain), *(("RAMAL_DOMAINS", name) for name in self.domains)]:
            if not is_domain(name):
                raise ConfigError(f"{key}: {name!r} is not a SIP domain such as example.test")

    def served(self) -> dict[str, Domain]:
        """Every domain we are responsible for, lower-case, with its settings."""
        return {self.domain.lower(): Domain(), **{name.lower(): d for name, d in self.domains.items()}}


class Kafka(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `kafka`."""

    bootstrap: str = "127.0.0.1:9092"
    """One or more `host:port`, comma-separated."""
    replication_factor: Count = 1
    """Copies of each topic when `ramal topics` makes it, and at least so many later; 3 in production."""
    min_insync_replicas: Count = 1
    """Copies that must have a record before it is acknowledged, when `ramal topics` makes the topic, and at least so
    many later; 2 in production."""
    session_timeout: Seconds = 10.0
    """Seconds after which a silent consumer's partitions go to others."""
    request_timeout: Seconds = 2.0
    """Seconds an append may take before the phone hears 503."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Of the brokers' listener: with TLS (`SSL`), with a user who logs in (`SASL`), with both or neither."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """How the user logs in."""
    username: str = ""
    """Who logs in, with SASL."""
    password: Secret = Secret()
    """That user's."""
    ca_file: str = ""
    """PEM file of the authorities that may vouch for the brokers; the system's by default."""
    certificate: str = ""
    """PEM file of our certificate with its chain, where the brokers ask for one."""
    private_key: str = ""
    """PEM file, not encrypted; in the certificate's file by default."""

    @property
    def brokers(self) -> list[str]:
        """Those of `bootstrap`, one by one."""
        return [broker.strip() for broker in self.bootstrap.split(",")]

    @property
    def tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        return self.security_protocol.startswith("SASL")

    def __post_init__(self) -> None:
        """Raises ConfigError for what is no address, and for settings that contradict each other."""
        for broker in self.brokers:
            address = _BROKER.fullmatch(broker)
            if address is None or not 0 < int(address["port"] or 9092) <= 65535:
                raise ConfigError(f"RAMAL_KAFKA_BOOTSTRAP: {broker!r} is not host:port")
        protocol = f"RAMAL_KAFKA_SECURITY_PROTOCOL is {self.security_protocol}"
        for name, value in (("USERNAME", self.username), ("PASSWORD", self.password)):
            if self.sasl and not value:
                raise ConfigError(f"RAMAL_KAFKA_{name}: is not set, but {protocol}")
            if value and not self.sasl:
                raise ConfigError(f"RAMAL_KAFKA_{name}: is of no use while {protocol}")
        check_files(self, "KAFKA", self.tls, "RAMAL_KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL")


class MySQL(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `mysql`."""

    host: str = "127.0.0.1"
    """MySQL or MariaDB."""
    port: Port = 3306
    """Its TCP port."""
    user: str = "ramal"
    """Who has all rights on the database."""
    password: Secret = Secret()
    """That user's, of ASCII."""
    database: str = "ramal"
    """Must exist; `ramal migrate` makes the tables."""
    timeout: Seconds = 2.0
    """Seconds for a connection or an answer."""
    pool: Count = 4
    """The most connections of one process."""
    tls: bool = False
    """TLS on every connection, with the server's certificate and its host name verified; nothing goes without."""
    ca_file: str = ""
    """PEM file of the authorities that may vouch for the server; the system's by default."""
    certificate: str = ""
    """PEM file of our certificate with its chain, where the account asks for one (`REQUIRE X509`)."""
    private_key: str = ""
    """PEM file, not encrypted; in the certificate's file by default."""

    def __post_init__(self) -> None:
        """Raises ConfigError for settings that contradict each other."""
        check_files(self, "MYSQL", self.tls, "RAMAL_MYSQL_TLS=true")


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """Where settings come from: the environment and the parsed file."""

    environ: Mapping[str, str]
    file: Mapping[str, Any]
    path: str = "ramal.toml"

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> "Sources":
        """The environment, and the file that RAMAL_CONFIG names (or `ramal.toml` here, if there is one)."""
        named = environ.get("RAMAL_CONFIG")
        path = Path(named or "ramal.toml")
        if not named and not path.exists():
            return cls(environ, {})
        try:
            return cls(environ, tomllib.loads(path.read_text()), str(path))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from error

    def section(self, kind: type[T], name: str = "", **overrides: Any) -> T:
        """The typed settings of one section; raises ConfigError that names the key.

        `overrides` win over both sources (command-line options); None means not given.
        """
        table: Any = self.file if not name else self.file.get(name, {})
        if not isinstance(table, Mapping):
            raise ConfigError(f"{self.path}: [{name}] is not a table")
        values: dict[str, Any] = {}
        prefix = f"{self.path}: {name}." if name else f"{self.path}: "
        for field in msgspec.structs.fields(kind):
            if field.name in table:
                values[field.name] = self._typed(field, table[field.name], prefix + field.name)
            variable = PREFIX + (f"{name}_" if name else "").upper() + field.name.upper()
            text = self._text(variable, field.type is Secret)
            if text is not None:
                values[field.name] = self._typed(field, text, variable)
        if name:
            self._refuse_unknown(kind, name, table)
        values.update({key: value for key, value in overrides.items() if value is not None})
        return kind(**values)

    def check_names(self, kinds: Mapping[str, type[msgspec.Struct]]) -> list[str]:
        """Raises ConfigError for a misspelt section, setting or variable; returns variables that mean nothing at all.

        `kinds` are all sections of the system. A variable that resembles none may be somebody else's.
        """
        known = {field.name for field in msgspec.structs.fields(kinds[""])}
        for key in self.file:
            if key not in known and key not in kinds:
                what = "section" if isinstance(self.file[key], Mapping) else "setting"
                raise ConfigError(f"{self.path}: {key}: there is no such {what}{meant(key, {*known, *kinds} - {''})}")
        variables = {PREFIX + "CONFIG"}
        for name, kind in kinds.items():
            for field in msgspec.structs.fields(kind):
                variable = PREFIX + (f"{name}_" if name else "").upper() + field.name.upper()
                variables |= {variable, variable + FILE} if field.type is Secret else {variable}
        foreign = []
        for name in sorted(self.environ):
            if not name.startswith(PREFIX) or name in variables or self._is_service_link(name):
                continue
            if like := meant(name, variables, cutoff=0.85):
                raise ConfigError(f"{name}: there is no such setting{like}")
            foreign.append(name)
        return foreign

    def _is_service_link(self, name: str) -> bool:
        return bool(SERVICE_LINK.fullmatch(name)) or self.environ[name].startswith(("tcp://", "udp://", "sctp://"))

    def _text(self, variable: str, secret: bool) -> str | None:
        if secret and (path := self.environ.get(variable + "_FILE")):
            try:
                return Path(path).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{variable}_FILE: {error}") from error
        if variable in self.environ and variable.endswith("_PORT") and self._is_service_link(variable):
            return None
        return self.environ.get(variable)

    def _typed(self, field: msgspec.structs.FieldInfo, value: Any, key: str) -> Any:
        if field.type is Secret:
            return Secret(value)
        # In the environment a list is comma-separated and a table is JSON.
        given = value
        if isinstance(value, str) and field.type is not str:
            text = value.strip()
            listed = "tuple" in str(field.type)
            # `[::]:5060` is the beginning of an address, not of JSON.
            if text.startswith(("{", '["') if listed else ("{", "[")):
                try:
                    value = msgspec.json.decode(text)
                except msgspec.DecodeError as error:
                    raise ConfigError(f"{key}: is not JSON: {error}") from error
            elif listed:
                value = [part.strip() for part in text.split(",") if part.strip()]
        return typed(key, field.type, value, given)

    def _refuse_unknown(self, kind: type[T], name: str, table: Mapping[str, Any]) -> None:
        known = {field.name for field in msgspec.structs.fields(kind)}
        for key in table:
            if key not in known:
                raise ConfigError(f"{self.path}: {name}.{key}: there is no such setting{meant(key, known)}")


def is_domain(name: str) -> bool:
    """Whether a text can be the host of a SIP URI, without brackets or port."""
    try:
        uri = parse_uri(f"sip:{name}")
    except ParseError:
        return False
    return bool(name) and uri.user is None and uri.port is None and uri.host == name and not uri.params


def without_userinfo(text: str) -> str:
    """A text as it may be shown: URLs in it without the user and password that they may have."""
    return _USERINFO.sub("", text)


def masked(settings: msgspec.Struct) -> dict[str, Any]:
    """The settings for people: secrets as `***`, URLs without user and password."""
    plain: dict[str, Any] = {}
    for field in msgspec.structs.fields(type(settings)):
        value = getattr(settings, field.name)
        if isinstance(value, Secret):
            value = "***" if value else ""
        plain[field.name] = _shown(msgspec.to_builtins(value))
    return plain


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return without_userinfo(value)
    if isinstance(value, dict):
        return {key: _shown(each) for key, each in value.items()}
    return [_shown(each) for each in value] if isinstance(value, list | tuple) else value


def toml(value: Any) -> str:
    """A value as ramal.toml spells it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def hmac_keys(text: str) -> dict[str, bytes]:
    """The keys of `Common.keys`, the signing one first; raises ConfigError."""
    keys: dict[str, bytes] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        id_, colon, hexadecimal = part.partition(":")
        try:
            key = bytes.fromhex(hexadecimal)
        except ValueError:
            key = b""
        if not colon or not id_.isalnum() or len(id_) > 8 or len(key) < 16:
            raise ConfigError(
                "RAMAL_KEYS: each key is ID:HEX, ID up to 8 letters and digits, HEX at least 32 hex digits"
            )
        keys[id_.lower()] = key
    if not keys:
        raise ConfigError("RAMAL_KEYS: is not set; make one with: echo k1:$(openssl rand -hex 32)")
    return keys
