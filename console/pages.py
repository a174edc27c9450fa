"""The console's pages: files of this package, read once, under a strict policy."""

import gzip
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from console.config import ConsoleConfig
from runtime.pages import Page, Pages

STATIC = Path(__file__).parent / "static"
"""Built from `web` by `npm run build`."""
SOFTPHONE = "/softphone/"
OPERATORS, ENROLMENT = "console", "enroll"
"""Files of these stems are of other pages than the softphone's."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def pages(config: ConsoleConfig, domain: str) -> Pages:
    """`/`, and the softphone with its settings below `/softphone/`."""
    fields = security_fields(config)
    known = {"domain": domain, "websocket": config.websocket, "port": config.websocket_port}
    # Relative: the console may be below a path of an ingress.
    front = Page(302, {**fields, "Location": SOFTPHONE.lstrip("/")})
    json_fields = {**fields, "Content-Type": "application/json", "Cache-Control": "no-store"}
    fixed = {"/": front, SOFTPHONE + "settings.json": Page(200, json_fields, json.dumps(known).encode())}
    files = {
        SOFTPHONE + ("" if p.name == "index.html" else p.name): _File(p, fields)
        for p in STATIC.iterdir()
        if p.stem not in (OPERATORS, ENROLMENT)
    }

    def page(path: str, asked: Mapping[str, str]) -> Page | None:
        file = files.get(path)
        return fixed.get(path) if file is None else file.page(asked)

    return page


def operators_files(config: ConsoleConfig) -> Pages:
    """The files of the operators' pages by name, the page itself as ""; whoever has them has seen nothing yet."""
    return _files_of(OPERATORS, config)


def enrolment_files(config: ConsoleConfig) -> Pages:
    """The same of the page on which users enrol."""
    return _files_of(ENROLMENT, config)


def _files_of(stem: str, config: ConsoleConfig) -> Pages:
    fields = _fields("'self'")
    if config.origin.startswith("https:"):
        fields = {**fields, "Strict-Transport-Security": "max-age=31536000"}
    shared = ("icon.svg", "licences.txt")
    files = {
        "" if p.suffix == ".html" else p.name: _File(p, fields)
        for p in STATIC.iterdir()
        if p.stem == stem or p.name in shared
    }

    def page(name: str, asked: Mapping[str, str]) -> Page | None:
        file = files.get(name)
        return None if file is None else file.page(asked)

    return page


def security_fields(config: ConsoleConfig) -> Mapping[str, str]:
    """No script, style, frame or connection but our own and the edge's WebSocket."""
    socket = "'self'"
    if config.websocket:
        socket += " " + "/".join(config.websocket.split("/")[:3])
    elif config.websocket_port:
        socket += f" ws://*:{config.websocket_port} wss://*:{config.websocket_port}"
    return {**_fields(socket), "Permissions-Policy": "camera=(self), microphone=(self)"}


def _fields(socket: str) -> Mapping[str, str]:
    """`socket`: what may be connected to."""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src {socket}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
    }


class _File:
    """A file as it is sent: whole, compressed for who can read that, or not at all to who has it."""

    def __init__(self, path: Path, fields: Mapping[str, str]) -> None:
        body = path.read_bytes()
        self._tag = f'W/"{sha256(body).hexdigest()[:32]}"'
        # no-cache: kept, but asked for at each visit, so that an update is seen at once.
        fields = {**fields, "ETag": self._tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        self._unchanged = Page(304, fields)
        fields = {**fields, "Content-Type": TYPES[path.suffix]}
        self._whole = Page(200, fields, body)
        self._small = Page(200, {**fields, "Content-Encoding": "gzip"}, gzip.compress(body, mtime=0))

    def page(self, asked: Mapping[str, str]) -> Page:
        if asked.get("If-None-Match") == self._tag:
            return self._unchanged
        return self._small if "gzip" in asked.get("Accept-Encoding", "") else self._whole
