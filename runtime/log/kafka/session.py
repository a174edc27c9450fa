"""How a connection to a broker begins: TLS, versions and SASL are aiokafka's, then the transport is ours.

aiokafka does not authenticate again (KIP-368): where brokers have `connections.max.reauth.ms` set, they end a
connection at the first request after that time. A `Session` knows when that is, so that its user can be quicker.
"""

import asyncio
import math
import ssl
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.admin import SaslAuthenticateRequest

from runtime.config import Kafka
from runtime.tls import client_context, tls_fault

PROTOCOL = "RAMAL_KAFKA_SECURITY_PROTOCOL"
CANCELLED_SECONDS = 0.3
"""For a broker's answer that nobody waits for any more."""


class Refused(errors.KafkaError):  # type: ignore[misc]  # aiokafka ships no types
    """A broker will not have us, or shows a wrong certificate: only a person can mend that. Says so in a sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


def security(kafka: Kafka) -> dict[str, Any]:
    """What each of aiokafka's objects is given to log in with; raises ConfigError."""
    given: dict[str, Any] = {"security_protocol": kafka.security_protocol}
    if kafka.tls:
        given["ssl_context"] = client_context(kafka, "KAFKA")
    if kafka.sasl:
        given |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.username,
            "sasl_plain_password": str(kafka.password),
        }
    return given


class Session(AIOKafkaConnection):  # type: ignore[misc]
    """aiokafka's connection, which keeps what the broker says of its life."""

    seconds = math.inf
    """How long the broker takes requests, from the log-in on."""

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """As aiokafka's."""
        answer = super().send(request, expect_response)
        return self._noted(answer) if isinstance(request, SaslAuthenticateRequest) else answer

    async def _noted(self, answer: Any) -> Any:
        response = await answer
        if (lifetime := getattr(response, "session_lifetime_ms", 0)) > 0:
            self.seconds = lifetime / 1000
        return response

    def close(self, reason: Any = None, exc: BaseException | None = None) -> Any:
        """Closes the socket at once; aiokafka would wait for TLS's goodbye."""
        writer: Any = self._writer
        if writer is not None and not writer.transport.is_closing():
            writer.transport.abort()  # before aiokafka closes it: Python 3.11.2 cannot abort TLS that is closing
        return super().close(reason, exc)

    def versions(self, api: int) -> tuple[int, int]:
        """The least and the greatest version of an API that the broker speaks; (-1, -1) for none."""
        least, most = self._versions.get(api, (-1, -1))
        return int(least), int(most)

    def hand_over(self, protocol: asyncio.Protocol) -> object:
        """Gives the transport another protocol; what is returned is to be kept, its end closes the transport."""
        # Nothing is outstanding: nothing of what the broker sends from here on is aiokafka's.
        self._read_task.cancel()
        writer: asyncio.StreamWriter = self._writer  # type: ignore[has-type]
        self._reader = self._writer = None
        writer.transport.set_protocol(protocol)
        protocol.connection_made(writer.transport)
        return writer


async def open_session(
    kafka: Kafka, given: dict[str, Any], client_id: str, host: str, port: int, timeout: float
) -> Session:
    """Connects and logs in; `given` is that of `security`, `timeout` (seconds) that of each step.

    Raises Refused, another KafkaError, OSError or TimeoutError.
    """
    session = Session(host, port, client_id=client_id, request_timeout_ms=int(timeout * 1000), **given)
    try:
        await session.connect()
    except (OSError, errors.KafkaError, ValueError, AssertionError) as error:
        if sentence := _refusal(error, kafka, f"{host}:{port}"):
            raise Refused(sentence) from error
        if isinstance(error, ValueError | AssertionError):  # of aiokafka's SASL and versions
            raise errors.KafkaConnectionError(f"the broker at {host}:{port} answers nonsense: {error}") from error
        raise
    return session


def _refusal(error: Exception, kafka: Kafka, address: str) -> str | None:
    broker = f"the broker at {address}"
    if isinstance(error, errors.SaslAuthenticationFailed):
        return f"{broker} refuses RAMAL_KAFKA_USERNAME or RAMAL_KAFKA_PASSWORD ({kafka.sasl_mechanism})"
    if isinstance(error, errors.UnsupportedSaslMechanismError):
        return f"{broker} has no RAMAL_KAFKA_SASL_MECHANISM={kafka.sasl_mechanism}"
    if isinstance(error, errors.IllegalSaslStateError):
        return f"{broker} does not want a user there: {PROTOCOL} is {kafka.security_protocol}"
    return tls_fault(error, "KAFKA", kafka, "the broker", address)


class Client(AIOKafkaClient):  # type: ignore[misc]
    """aiokafka's client with our settings; one that cannot begin says why."""

    def __init__(self, kafka: Kafka, given: dict[str, Any], client_id: str, request_timeout: float) -> None:
        """`given` is that of `security`; `request_timeout` in seconds."""
        super().__init__(
            bootstrap_servers=kafka.brokers,
            client_id=client_id,
            request_timeout_ms=int(request_timeout * 1000),
            retry_backoff_ms=100,
            metadata_max_age_ms=30_000,
            **given,
        )
        self._kafka, self._given = kafka, given
        self._closed = False

    async def close(self) -> None:
        """Closes all connections for good."""
        self._closed = True
        await super().close()

    async def _get_conn(self, node_id: int, **kw: Any) -> Any:
        """aiokafka's connects anew for whoever still tries again after the end, and nobody closes that one."""
        connection = None if self._closed else await super()._get_conn(node_id, **kw)
        if self._closed and connection is not None:
            connection.close()
            return None
        return connection

    async def session(self, host: str, port: int, timeout: float) -> Session:
        """See `open_session`."""
        return await open_session(self._kafka, self._given, self._client_id, host, port, timeout)

    async def bootstrap(self) -> None:
        """Raises Refused, or KafkaConnectionError with the reason."""
        # aiokafka keeps to itself why it cannot connect, so we try the brokers first.
        reasons: list[errors.KafkaError] = []
        for host, port, _ in self.hosts:
            reason = await self._reason(host, port)
            if reason is None:
                break
            reasons.append(reason)
        else:
            raise next((reason for reason in reasons if isinstance(reason, Refused)), reasons[0])
        try:
            await self._begin()
        except errors.KafkaConnectionError as error:
            raise errors.KafkaConnectionError(f"{host}:{port} takes no request with {self._protocol()}") from error

    async def _begin(self) -> None:
        """aiokafka's beginning, to its end: one that is cancelled half-way leaves its connection open."""
        beginning = asyncio.ensure_future(super().bootstrap())
        try:
            await asyncio.shield(beginning)
        except asyncio.CancelledError:
            try:
                await asyncio.wait({beginning}, timeout=CANCELLED_SECONDS)
            finally:
                if not beginning.cancel() and not beginning.cancelled():
                    beginning.exception()  # of no interest to anybody any more
            raise

    async def _reason(self, host: str, port: int) -> errors.KafkaError | None:
        """Why we cannot log in there; None where we can."""
        try:
            session = await self.session(host, port, self._request_timeout_ms / 1000)
        except TimeoutError:
            return errors.KafkaConnectionError(f"{host}:{port} does not answer as a broker with {self._protocol()}")
        except Refused as error:
            return error
        except (errors.KafkaError, ConnectionResetError, ssl.SSLError):
            return errors.KafkaConnectionError(f"{host}:{port} ends connections with {self._protocol()}")
        except OSError as error:
            return errors.KafkaConnectionError(f"{host}:{port}: {error.strerror or error}")
        session.close()
        return None

    def _protocol(self) -> str:
        return f"{PROTOCOL}={self._kafka.security_protocol}"
