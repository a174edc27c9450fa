"""Spans to an OpenTelemetry collector, by OTLP over HTTP in JSON."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import aiohttp
import orjson

from ramal.tracing.spans import Attribute, Span
from runtime.errors import Unavailable

PATH = "/v1/traces"
TIMEOUT = aiohttp.ClientTimeout(total=10.0)
_LATER = (408, 429)
"""Of the 4xx, those that the same request may outlive."""
_SERVER, _INTERNAL, _ERROR = 2, 1, 2
"""Of opentelemetry.proto.trace.v1: kinds of spans, and the status that is an error."""


def body(spans: Iterable[Span]) -> bytes:
    """An ExportTraceServiceRequest, one resource a service."""
    by_service: dict[str, list[dict[str, Any]]] = {}
    for span in spans:
        by_service.setdefault(span.service, []).append(_said(span))
    scope = {"name": "ramal", "version": version("ramal")}
    return orjson.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": [_attribute("service.name", f"ramal-{service}")]},
                    "scopeSpans": [{"scope": scope, "spans": said}],
                }
                for service, said in by_service.items()
            ]
        }
    )


def _said(span: Span) -> dict[str, Any]:
    said: dict[str, Any] = {
        "traceId": span.trace,
        "spanId": span.id,
        "name": span.name,
        "kind": _INTERNAL if span.parent else _SERVER,
        "startTimeUnixNano": f"{span.began}000000",
        "endTimeUnixNano": f"{span.ended}000000",
        "attributes": [_attribute(name, value) for name, value in span.attributes],
    }
    if span.parent:
        said["parentSpanId"] = span.parent
    if span.error:
        said["status"] = {"code": _ERROR, "message": span.error}
    return said


def _attribute(name: str, value: Attribute) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"key": name, "value": {"boolValue": value}}
    if isinstance(value, int):
        return {"key": name, "value": {"intValue": str(value)}}
    return {"key": name, "value": {"stringValue": value}}


class Refused(Exception):
    """The collector will never take these spans."""


async def send(session: aiohttp.ClientSession, url: str, spans: list[Span]) -> None:
    """Raises Refused when the collector will never take these, Unavailable when it does not now."""
    try:
        async with session.post(
            url + PATH,
            data=body(spans),
            headers={"Content-Type": "application/json"},
            timeout=TIMEOUT,
            allow_redirects=False,  # of a POST it would make a GET, whose 200 says nothing
        ) as answer:
            if 400 <= answer.status < 500 and answer.status not in _LATER:
                raise Refused(f"the collector at {url} refuses spans with {answer.status}")
            if answer.status >= 300:
                raise Unavailable(f"the collector at {url} answers {answer.status}")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unavailable(f"the collector at {url} is away: {str(error) or type(error).__name__}") from error
