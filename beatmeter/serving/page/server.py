"""A server on this machine for the files of a page: it knows a table of paths and nothing else.

Names that other pages give this machine (DNS rebinding) and requests that other pages make are refused. It
holds the files, a bounded number of connections, and no request body.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from socket import socket
from typing import Any

from beatmeter.errors import ConfigError
from beatmeter.serving.page.build import TYPES

HOST = "127.0.0.1"
CONNECTIONS = 32  # at once; browsers open six
SECONDS = 20  # without a byte before a connection is closed
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class PageServer(ThreadingHTTPServer):
    """Serves `files` (path: bytes) on localhost; port 0 takes a free one. Raises ConfigError when the port
    is taken."""

    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, files: Mapping[str, bytes], port: int = 0) -> None:
        self.table = {f"/{path}": data for path, data in files.items()}
        self.table["/"] = files["index.html"]
        self._places = threading.BoundedSemaphore(CONNECTIONS)
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"cannot listen on port {port}: {reason}", "Choose another: --port 0") from None

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names under which it answers."""
        return tuple(f"{name}:{self.port}" for name in ("localhost", HOST))

    def process_request(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            assert isinstance(request, socket)
            request.settimeout(1.0)
            with contextlib.suppress(OSError):
                request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """A browser that goes away in the middle is no fault of ours."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: PageServer
    timeout = SECONDS
    server_version, sys_version = "beatmeter", ""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if refusal := self._refusal(path):
            status, text = refusal
            self._answer(status, f"{text}\n".encode(), "text/plain; charset=utf-8")
        else:
            kind = TYPES[PurePosixPath(path).suffix or ".html"]
            self._answer(HTTPStatus.OK, self.server.table[path], kind)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def _refusal(self, path: str) -> tuple[HTTPStatus, str] | None:
        """Why there is no answer, if there is none."""
        hosts, origin = self.server.hosts, self.headers.get("Origin")
        if self.headers.get_all("Host", []) not in [[host] for host in hosts]:
            return HTTPStatus.MISDIRECTED_REQUEST, "this server answers as localhost only"
        if origin is not None and origin not in [f"http://{host}" for host in hosts]:
            return HTTPStatus.FORBIDDEN, "this server answers its own page only"
        if self.headers.get("Content-Length", "0") != "0" or self.headers.get("Transfer-Encoding"):
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "this server takes nothing"
        return None if path in self.server.table else (HTTPStatus.NOT_FOUND, "there is no such file here")

    def _answer(self, status: HTTPStatus, data: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Requests that are not even understood: methods that are not GET, lines that are too long."""
        status = HTTPStatus(code)
        known = HTTPStatus.METHOD_NOT_ALLOWED if status is HTTPStatus.NOT_IMPLEMENTED else status
        self.close_connection = True
        self._answer(known, f"{known.phrase}\n".encode(), "text/plain; charset=utf-8")

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads over the shoulder."""
