"""Settings of the console; section `console`."""

import re
from typing import Literal, get_args

import msgspec

from runtime.config import Port
from runtime.errors import ConfigError

Role = Literal["read-only", "operator"]
"""`read-only` sees everything, `operator` may end registrations, too."""
ROLES: tuple[Role, ...] = get_args(Role)
"""Who may less comes first."""


class ConsoleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `console`."""

    host: str = "127.0.0.1"
    """Where `ramal console` serves the pages."""
    port: Port = 8081
    """The port of the pages; 0: any free port."""
    websocket: str = ""
    """URL of an edge's WebSocket for the softphone, `wss://sip.example.test/sip`; by default `/sip` at the
    host that the page came from."""
    websocket_port: Port = 0
    """The port of that default; 0: the one that the page came from, as behind an ingress."""
    operators_file: str = ""
    """Who may log in to the operators' pages (`ramal operator`); empty: none of it."""
    groups: dict[str, Role] = {}
    """Who of the LDAP directory (`RAMAL_LDAP_URL` and what follows it) may log in, too: by a group's DN the role of its
    members, `{"cn=noc,ou=Groups,dc=example,dc=test": "operator"}`; none: nobody."""
    processes: tuple[str, ...] = ()
    """`NAME=http://HOST:PORT` of each process whose health the operators' pages show; none: this one alone."""
    origin: str = ""
    """Where browsers find the operators' pages behind what does TLS, `https://console.example.test`: cookies are
    Secure then, and a request that changes something must come from there."""

    def checked(self) -> "ConsoleConfig":
        """Itself; raises ConfigError that names the key."""
        # It goes into a header: nothing in it may end the directive that it stands in.
        if self.websocket and not re.fullmatch(r"wss?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9/._~%-]*)?", self.websocket):
            raise ConfigError("RAMAL_CONSOLE_WEBSOCKET: is not a ws:// or wss:// URL without a query")
        if self.origin and not re.fullmatch(r"https?://[a-z0-9.\[\]:-]+", self.origin):
            raise ConfigError("RAMAL_CONSOLE_ORIGIN: is not https://HOST[:PORT] in lower case, without a path")
        for group in self.groups:
            if "=" not in group:
                raise ConfigError(f"RAMAL_CONSOLE_GROUPS: {group!r} is not the DN of a group")
        return self
