"""The HTTP side of every service: `/healthz`, `/readyz`, `/status`, `/metrics`, and a service's own routes.

Two questions, two pages. `/readyz`, for balancers: should phones (or a roll-out) come here? `/status`, for people and
alarms: what of all that this process needs is away? An edge without MySQL is ready, and its status says why phones
hear 503: were it not ready, an outage of MySQL would take every edge out of the Service, and phones would hear nothing.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from runtime.inherited import inherited

Route = tuple[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]]
"""Method, path and aiohttp handler."""

Status = Mapping[str, Mapping[str, str]]
"""By service, by what it needs: why that is away, one sentence; "" while it is there."""


class HttpServer:
    """Serves on one address; `port` is the real one once started."""

    def __init__(
        self,
        host: str,
        port: int,
        not_ready: Callable[[], list[str]],
        routes: Sequence[Route] = (),
        *,
        status: Callable[[], Status] = dict,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self.host, self.port = host, port
        self._not_ready = not_ready
        self._status, self._draining = status, draining
        self._application = web.Application(client_max_size=64 * 1024)
        self._application.router.add_get("/healthz", self._healthz)
        self._application.router.add_get("/readyz", self._readyz)
        self._application.router.add_get("/status", self._status_page)
        self._application.router.add_get("/metrics", self._metrics)
        for method, path, handler in routes:
            self._application.router.add_route(method, path, handler)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listens; raises OSError when the address is taken."""
        self._runner = web.AppRunner(self._application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        opened = inherited("http", self.host, self.port)
        site = web.SockSite(self._runner, opened) if opened else web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = self._not_ready()
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def _status_page(self, request: web.Request) -> web.Response:
        """JSON, or words for who asks for `text/plain`; always 200."""
        said = described(self._not_ready(), self._status(), draining=self._draining())
        if "text/plain" in request.headers.get("Accept", ""):
            return web.Response(text=in_words(said))
        return web.json_response(said)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def described(not_ready: Sequence[str], status: Status, *, draining: bool) -> dict[str, Any]:
    """What `/status` says: `reasons` has every sentence of it that says that something is not as it should be."""
    away = [f"{service}: {why}" for service, needs in status.items() for why in needs.values() if why]
    return {
        "ready": not not_ready,
        "draining": draining,
        "reasons": list(dict.fromkeys([*not_ready, *away])),
        "services": {
            service: {need: {"ok": not why, "reason": why} for need, why in needs.items()}
            for service, needs in status.items()
        },
    }


def in_words(said: Mapping[str, Any]) -> str:
    """The same for people: a line for the process, and one for each thing that a service needs."""
    head = "ready" if said["ready"] else "not ready"
    lines = [f"{head}, draining" if said["draining"] else head]
    for service, needs in said["services"].items():
        lines += [f"{service} {need}: {each['reason'] or 'ok'}" for need, each in needs.items()]
    told = "\n".join(lines)
    lines += [reason for reason in said["reasons"] if (reason.partition(": ")[2] or reason) not in told]
    return "\n".join(lines) + "\n"
