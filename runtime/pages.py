"""Pages for the public: their own listener, never the operators', who also see who is registered."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from aiohttp import web


class Page(NamedTuple):
    """A response that is ready to be sent."""

    status: int
    fields: Mapping[str, str]
    body: bytes = b""


Pages = Callable[[str, Mapping[str, str]], Page | None]
"""The page at a path for a request with these header fields, whose names are found in any case; None: there is none."""


Answered = tuple[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]]
"""Method, path and handler."""


class PageServer:
    """Serves pages on one address; `port` is the real one once started."""

    def __init__(self, host: str, port: int, pages: Pages, routes: Sequence[Answered] = ()) -> None:
        """`routes`: what is answered by a handler, before all pages."""
        self.host, self.port = host, port
        self._pages = pages
        self._routes = routes
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listens; raises OSError when the address is taken."""
        application = web.Application(client_max_size=16 * 1024)
        for method, path, handler in self._routes:
            application.router.add_route(method, path, handler)
        application.router.add_get("/{path:.*}", self._page)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _page(self, request: web.Request) -> web.Response:
        found = self._pages(request.path, request.headers)
        if found is None:
            raise web.HTTPNotFound
        return web.Response(status=found.status, headers=found.fields, body=found.body)
