"""How Faust is set up, and where it keeps its tables."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faust
from yarl import URL

from runtime.config import Common, Kafka
from runtime.tls import client_context

STALE_SECONDS = 12 * 3600
"""Tables that nobody has written for so long are filled from the log: the changelog may have forgotten deletions."""


def application(common: Common, kafka: Kafka, directory: Path) -> faust.App:
    """Faust's settings, each for a reason in docs/kafka.md, section 4."""
    app = faust.App(
        f"{common.topic_prefix}analytics",
        broker=[URL(f"kafka://{broker}") for broker in kafka.brokers],
        broker_credentials=_credentials(kafka),
        broker_client_id="ramal-analytics",
        broker_session_timeout=kafka.session_timeout,
        broker_heartbeat_interval=min(2.0, kafka.session_timeout / 4),
        broker_request_timeout=max(30.0, kafka.session_timeout + 1),
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="latest",  # positions are ours: see above
        processing_guarantee="at_least_once",
        datadir=directory,
        store="rocksdb://",
        key_serializer="raw",
        value_serializer="raw",
        producer_acks=-1,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=common.partitions,
        web_enabled=False,
        autodiscover=False,
    )
    app.finalize()
    return app


def _credentials(kafka: Kafka) -> Any:
    context = client_context(kafka, "KAFKA") if kafka.tls else None
    if kafka.sasl:
        return faust.SASLCredentials(
            username=kafka.username, password=kafka.password, mechanism=kafka.sasl_mechanism, ssl_context=context
        )
    return None if context is None else faust.SSLCredentials(context)


@contextlib.contextmanager
def directory(named: str) -> Iterator[Path]:
    """Where Faust keeps its tables: emptied if it is too old to be trusted."""
    if not named:
        with tempfile.TemporaryDirectory(prefix="ramal-analytics-") as temporary:
            yield Path(temporary)
        return
    directory = Path(named)
    mark = directory / "used"
    if mark.exists() and time.time() - mark.stat().st_mtime > STALE_SECONDS:
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        yield directory
    finally:
        with contextlib.suppress(OSError):
            os.utime(mark)
