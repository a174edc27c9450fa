"""The HTTP side of every service: `/healthz`, `/readyz`, `/metrics`, and a service's own routes."""

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Route = tuple[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]]
"""Method, path and aiohttp handler."""


class HttpServer:
    """Serves on one address; `port` is the real one once started."""

    def __init__(self, host: str, port: int, not_ready: Callable[[], list[str]], routes: Sequence[Route] = ()) -> None:
        self.host, self.port = host, port
        self._not_ready = not_ready
        self._application = web.Application(client_max_size=64 * 1024)
        self._application.router.add_get("/healthz", self._healthz)
        self._application.router.add_get("/readyz", self._readyz)
        self._application.router.add_get("/metrics", self._metrics)
        for method, path, handler in routes:
            self._application.router.add_route(method, path, handler)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listens; raises OSError when the address is taken."""
        self._runner = web.AppRunner(self._application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
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

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
