"""Closing aiokafka's objects within a deadline: on a hung link their own stop() waits for ever."""

import asyncio
import contextlib

from aiokafka import AIOKafkaProducer, errors
from aiokafka.client import AIOKafkaClient

ABRUPT_SECONDS = 0.3
"""For what is left to do once no more is waited for."""


async def close_client(client: AIOKafkaClient, seconds: float = 1.0) -> None:
    """Closes a client's connections, whatever is still to be sent over them."""
    connections = list(client._conns.values())  # noqa: SLF001  # a closed connection forgets its transport
    transports = [c._writer.transport for c in connections if c._writer is not None]  # noqa: SLF001
    try:
        async with asyncio.timeout(seconds):
            await client.close()
    except (TimeoutError, errors.KafkaError):
        for transport in transports:
            if not transport.is_closing():  # who closes one of ours aborts it (see `session`)
                transport.abort()


async def close_producer(producer: AIOKafkaProducer, seconds: float) -> None:
    """Flushes and closes a producer; at the deadline its buffered records are dropped, not sent later."""
    try:
        async with asyncio.timeout(seconds):
            await producer.stop()
    except (TimeoutError, errors.KafkaError):
        await drop_producer(producer)


async def drop_producer(producer: AIOKafkaProducer) -> None:
    """Ends a producer at once: what it has not sent is never sent."""
    producer._closed = True  # noqa: SLF001  # its __del__ would complain, but stop() would flush
    sending = producer._sender.sender_task  # noqa: SLF001  # there is no other way to end it
    if sending is not None:
        sending.cancel()
    await close_client(producer.client, ABRUPT_SECONDS)
    if sending is not None:
        await asyncio.wait({sending}, timeout=ABRUPT_SECONDS)
        if sending.done() and not sending.cancelled():
            with contextlib.suppress(Exception):  # why it ended is of no interest to anybody any more
                sending.result()
