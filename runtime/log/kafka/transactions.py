"""Transactions: one aiokafka producer for each transactional id, made when it is first used.

A producer whose transaction did not end well is dropped, never repaired: the next one starts by fencing it, and
the broker then aborts what it left open. So an outcome that is unknown stays the only one there is.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, errors

from runtime.config import Kafka
from runtime.errors import Fenced, LogRefused, LogUnavailable
from runtime.log.kafka.closing import close_producer, drop_producer
from runtime.log.kafka.session import begin
from runtime.log.port import Append

TRANSACTION_SECONDS = 5.0
OPEN_MS = 10_000
"""The broker aborts a dead writer's transaction after this; committed readers wait for it."""
BATCH_BYTES = 256 * 1024

_FENCED = (errors.ProducerFenced, errors.InvalidProducerEpoch)
_REFUSED = (errors.MessageSizeTooLargeError, errors.InvalidMessageError, errors.RecordListTooLargeError)


class Transactions:
    """The transactional producers of one log."""

    def __init__(self, kafka: Kafka, given: Mapping[str, Any], prefix: str, client_id: str) -> None:
        """`given` is that of `runtime.log.kafka.session.security`."""
        self._kafka, self._given, self._prefix, self._client_id = kafka, given, prefix, client_id
        self._producers: dict[str, AIOKafkaProducer] = {}
        """None is forgotten for its age: the next call for its id would fence an owner who may be another by then."""
        self._locks: dict[str, asyncio.Lock] = {}

    async def append(self, transactional_id: str, records: Sequence[Append]) -> None:
        """See `Log.append_transaction`; calls for one id wait for each other."""
        lock = self._locks.setdefault(transactional_id, asyncio.Lock())
        try:
            async with asyncio.timeout(TRANSACTION_SECONDS), lock:
                producer = await self._producer(transactional_id)
                try:
                    await self._transact(producer, records)
                except BaseException:
                    self._producers.pop(transactional_id, None)
                    await drop_producer(producer)
                    raise
        except _FENCED as error:
            raise Fenced(f"a later writer has taken over {transactional_id}") from error
        except _REFUSED as error:
            raise LogRefused(f"{transactional_id}: the broker refuses a record: {type(error).__name__}") from error
        except (TimeoutError, errors.KafkaError, OSError) as error:
            raise LogUnavailable(f"{transactional_id}: the transaction was not acknowledged") from error

    async def stop(self, seconds: float) -> None:
        """Closes all producers."""
        producers = list(self._producers.values())
        self._producers.clear()
        self._locks.clear()
        await asyncio.gather(*(close_producer(producer, seconds) for producer in producers))

    async def _transact(self, producer: AIOKafkaProducer, records: Sequence[Append]) -> None:
        if not records:
            return
        await producer.begin_transaction()
        # Batch by batch: a snapshot is a thousand records at once, and `send` costs a future and a lock each.
        sent = [
            await producer.send_batch(batch, self._prefix + topic, partition=partition)
            for topic, partition, batch in _batches(producer, records)
        ]
        # A commit would also commit what is left of a transaction that lost a batch.
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        await producer.commit_transaction()

    async def _producer(self, transactional_id: str) -> AIOKafkaProducer:
        producer = self._producers.get(transactional_id)
        if producer is not None:
            return producer
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka.brokers,
            client_id=self._client_id,
            transactional_id=self._prefix + transactional_id,
            transaction_timeout_ms=OPEN_MS,
            max_batch_size=BATCH_BYTES,
            max_request_size=1_000_000,
            request_timeout_ms=int(self._kafka.request_timeout * 1000),
            **self._given,
        )
        try:
            await begin(producer.client, self._kafka, self._given)
            await producer._sender.start()  # noqa: SLF001  # the other half of its start()
        except BaseException:
            await drop_producer(producer)
            raise
        self._producers[transactional_id] = producer
        return producer


def _batches(producer: AIOKafkaProducer, records: Sequence[Append]) -> Iterator[tuple[str, int, Any]]:
    """Topic, partition and full batches of it, in order."""
    filling: dict[tuple[str, int], Any] = {}
    for record in records:
        there = (record.topic, record.partition)
        headers = list(record.headers)
        batch = filling.get(there)
        if batch is None:
            batch = filling[there] = producer.create_batch()
        if batch.append(key=record.key, value=record.value, timestamp=None, headers=headers) is None:
            yield *there, batch
            batch = filling[there] = producer.create_batch()
            batch.append(key=record.key, value=record.value, timestamp=None, headers=headers)
    for there, batch in filling.items():
        yield *there, batch
