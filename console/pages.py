"""The console's pages as HTTP routes: files of this package, read once, under a strict policy."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from aiohttp import web

from console.config import ConsoleConfig
from runtime.http import Route

STATIC = Path(__file__).parent / "static"
"""Built from `web` by `npm run build`."""
SOFTPHONE = "/softphone/"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def routes(config: ConsoleConfig, domain: str) -> Sequence[Route]:
    """`/`, and the softphone with its settings below `/softphone/`."""
    headers = security_headers(config)
    files = [_file(path, headers) for path in sorted(STATIC.iterdir())]

    async def front(_: web.Request) -> web.Response:
        # Relative: the console may be below a path of an ingress.
        return web.Response(status=302, headers={"Location": SOFTPHONE.lstrip("/")})

    async def settings(_: web.Request) -> web.Response:
        known = {"domain": domain, "websocket": config.websocket, "port": config.websocket_port}
        return web.json_response(known, headers={**headers, "Cache-Control": "no-store"})

    return (("GET", "/", front), ("GET", SOFTPHONE + "settings.json", settings), *files)


def security_headers(config: ConsoleConfig) -> Mapping[str, str]:
    """No script, style, frame or connection but our own and the edge's WebSocket."""
    socket = "'self'"
    if config.websocket:
        socket += " " + "/".join(config.websocket.split("/")[:3])
    elif config.websocket_port:
        socket += f" ws://*:{config.websocket_port} wss://*:{config.websocket_port}"
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src {socket}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Permissions-Policy": "camera=(self), microphone=(self)",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
    }


def _file(path: Path, headers: Mapping[str, str]) -> Route:
    body = path.read_bytes()
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    # no-cache: kept, but asked for at each visit, so that an update is seen at once.
    headers = {**headers, "Content-Type": TYPES[path.suffix], "ETag": tag, "Cache-Control": "no-cache"}

    async def file(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers)

    return "GET", SOFTPHONE + ("" if path.name == "index.html" else path.name), file
