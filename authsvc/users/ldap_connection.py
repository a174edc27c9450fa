"""A connection to the directory: opened, with its certificate verified, and bound. Blocks: for threads.

Every bind of anybody, the service's account or a person, goes this way (CHECKLIST A20, A21).
"""

import asyncio
import contextlib
import logging
import ssl
import warnings
from typing import Any

from authsvc.config import LdapSettings
from authsvc.users.ldap_wire import Ended, Malformed
from runtime.errors import ConfigError, Unavailable

with warnings.catch_warnings():
    # ldap3 2.9.1 imports names that pyasn1 0.6 calls deprecated; they are there and work.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3
    from ldap3.core.exceptions import LDAPException
    from ldap3.operation.search import compile_filter, parse_filter
    from pyasn1.codec.ber import encoder

log = logging.getLogger("ramal.authsvc")

CONNECT_SECONDS = 1.0
NO_ANSWER = (OSError, LDAPException, Malformed, Ended)
"""What a directory that does not answer the question raises."""


class LdapUnavailable(Unavailable):
    """The directory did not answer in time, or not the question."""


def connect(server: Any, settings: LdapSettings, person: tuple[str, str] | None = None) -> Any:
    """A connection bound as this person (DN and password), or as the service's account. Raises `NO_ANSWER`.

    An empty password never gets here as a person's: such a bind succeeds and proves nothing (RFC 4513 section 5.1.2).
    """
    if person is not None and not (person[0] and person[1]):
        raise ValueError("a bind without a name or a password proves nothing")
    dn, password = person or (settings.bind_dn, str(settings.bind_password))
    octets = password.encode("utf-8", "surrogatepass")  # as it was typed, as OpenLDAP's tools do: ldap3 would change it
    connection = ldap3.Connection(
        server,
        dn or None,
        octets if dn else None,
        authentication=ldap3.SIMPLE if dn else ldap3.ANONYMOUS,
        client_strategy=ldap3.SYNC,
        auto_referrals=False,
        check_names=False,
        # ldap3 packs it as a whole number; it bounds each of TLS and bind.
        receive_timeout=max(1, int(settings.timeout)),
        raise_exceptions=True,
    )
    try:
        connection.open(read_server_info=False)
        if settings.starttls:
            connection.start_tls(read_server_info=False)
        connection.bind(read_server_info=False)
    except BaseException as error:
        close(connection)
        if refused := getattr(connection, "tls_error", None):
            raise error from refused
        raise
    return connection


def warn_if_insecure(settings: LdapSettings) -> None:
    """Says loudly that passwords cross the network readable."""
    if settings.insecure and not settings.starttls and settings.url.startswith("ldap:"):
        log.warning(
            "RAMAL_LDAP_INSECURE: passwords cross the network readable; for development only",
            extra={"url": settings.url},
        )


class _VerifiedTls(ldap3.Tls):  # type: ignore[misc]  # ldap3 ships no types
    """TLS as the standard library does it: the certificate and the host's name are verified in the handshake.

    ldap3's own way compares names afterwards, by a function that Python has given up, and leaves the socket of a
    refused server open.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._context = context

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        try:
            connection.socket = self._context.wrap_socket(connection.socket, server_hostname=connection.server.host)
        except OSError as error:
            connection.tls_error = error  # ldap3 keeps but its text
            raise


def server_of(settings: LdapSettings) -> Any:
    """The server; raises ConfigError when its authorities' certificates cannot be read."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"RAMAL_LDAP_CA_FILE: {settings.ca_file}: {error}") from error
    return ldap3.Server(
        settings.url,
        use_ssl=settings.url.startswith("ldaps:"),
        get_info=ldap3.NONE,
        connect_timeout=CONNECT_SECONDS,
        tls=_VerifiedTls(context),
    )


def filter_octets(text: str) -> bytes:
    """A filter (RFC 4515) in BER, as a SearchRequest has it; nothing of an empty text. Raises ConfigError."""
    if not text:
        return b""
    try:
        parsed = parse_filter(text, None, True, None, None, False)
        return bytes(encoder.encode(compile_filter(parsed.elements[0])))
    except (LDAPException, ValueError, IndexError) as error:
        raise ConfigError(f"RAMAL_LDAP_FILTER: {text}: {error}") from error


def close_late(opening: asyncio.Future[Any]) -> None:
    """Closes a connection that nobody waits for any more when it is there."""
    if not opening.cancelled() and opening.exception() is None:
        close(opening.result())


def close(connection: Any) -> None:
    """Closes its socket at once."""
    # Not unbind(): it would wait for a server that hangs. The server sees the connection end.
    with contextlib.suppress(*NO_ANSWER):
        if connection.socket is not None:
            connection.socket.close()
