"""How a connection to a broker begins: TLS, versions and SASL are aiokafka's, then the transport is ours.

aiokafka does not authenticate again (KIP-368): where brokers have `connections.max.reauth.ms` set, they end a
connection at the first request after that time. A `Session` knows when that is, so that its user can be quicker.
"""

import asyncio
import math
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.admin import SaslAuthenticateRequest
from aiokafka.protocol.metadata import MetadataRequest

from runtime.config import Kafka
from runtime.tls import client_context, tls_fault

PROTOCOL = "RAMAL_KAFKA_SECURITY_PROTOCOL"


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
    kafka: Kafka, given: Mapping[str, Any], client_id: str, host: str, port: int, timeout: float
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


async def begin(client: AIOKafkaClient, kafka: Kafka, given: Mapping[str, Any]) -> None:
    """Has a client of aiokafka's ask the first broker that answers for the cluster, and follow it from then on.

    In place of its `bootstrap`, which keeps to itself why it cannot connect, and leaves its connection open when it is
    cancelled. Raises Refused, or KafkaConnectionError with the reason.
    """
    reasons: list[errors.KafkaError] = []
    for host, port, _ in client.hosts:
        broker, protocol = f"{host}:{port}", f"{PROTOCOL}={kafka.security_protocol}"
        try:
            await _ask_for_cluster(client, kafka, given, (host, port))
        except TimeoutError:
            reasons.append(errors.KafkaConnectionError(f"{broker} does not answer as a broker with {protocol}"))
        except (Refused, errors.BrokerNotAvailableError) as error:
            reasons.append(error)
        except (errors.KafkaError, ConnectionResetError, ssl.SSLError):
            reasons.append(errors.KafkaConnectionError(f"{broker} ends connections with {protocol}"))
        except OSError as error:
            reasons.append(errors.KafkaConnectionError(f"{broker}: {error.strerror or error}"))
        else:
            client._sync_task = asyncio.create_task(client._md_synchronizer())  # noqa: SLF001  # as its bootstrap does
            return
    raise next((reason for reason in reasons if isinstance(reason, Refused)), reasons[0])


async def _ask_for_cluster(client: AIOKafkaClient, kafka: Kafka, given: Mapping[str, Any], at: tuple[str, int]) -> None:
    client_id, timeout = client._client_id, client._request_timeout_ms / 1000  # noqa: SLF001  # it does not say else
    session = await open_session(kafka, given, client_id, *at, timeout)
    try:
        client.cluster.update_metadata(await session.send(MetadataRequest([])))
    finally:
        session.close()
    if not client.cluster.brokers():
        raise errors.BrokerNotAvailableError(f"{at[0]}:{at[1]} knows no broker yet")


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
        """See `begin`."""
        await begin(self, self._kafka, self._given)
