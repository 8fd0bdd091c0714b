"""An HTTP server on 127.0.0.1 for the pages of a folder of runs.

It answers GET and nothing else, and only who names it as this machine: a page of a stranger whose
name leads here (DNS rebinding) gets nothing. What it sends are pages that it has made; no file is
sent. Limits: whoever has an account on this machine can open the pages, as with TensorBoard.
"""

import errno
import gzip
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from r1recipes import __version__
from r1recipes.errors import RecipeError
from r1recipes.report import page
from r1recipes.report.serve.pages import Answer, Pages

HOST = "127.0.0.1"
PORT = 6116
"""Assumed: it is registered for nothing that is in use, and near that of TensorBoard, 6006."""
MAX_PORTS = 20
"""Ports that are tried one after another."""
NAMES = ("127.0.0.1", "localhost", "[::1]")
"""What the header Host may name, with any port: a tunnel of ssh has another one."""
MAX_CONNECTIONS = 64
"""Connections at a time; assumed, a browser has up to 6 for each of its windows."""
IDLE_S = 30
"""How long a connection may send nothing."""
LEAST_COMPRESSED = 2000
"""Bytes of a page from which on it is compressed; assumed."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}
"""Sent with every answer, beside the policy of the pages."""


def headers_of_all() -> dict[str, str]:
    """What is sent with every answer."""
    policy = f"{page.live_assets().policy}; frame-ancestors 'none'"
    return HEADERS | {"Content-Security-Policy": policy}


class Server(ThreadingHTTPServer):
    """Listens on 127.0.0.1; a thread for each connection, at most MAX_CONNECTIONS."""

    daemon_threads = True  # no connection keeps the command from ending
    request_queue_size = 2 * MAX_CONNECTIONS  # a browser's burst waits here, not for its next try
    block_on_close = False

    def __init__(self, port: int, pages: Pages):
        self.pages = pages
        self._free = threading.Semaphore(MAX_CONNECTIONS)
        super().__init__((HOST, port), Handler)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):  # the asker went away
            super().handle_error(request, client_address)


def listen(port: int, pages: Pages) -> Server:
    """A server at the first of MAX_PORTS ports from `port` that is free. Raises: RecipeError."""
    for number in range(port, min(port + MAX_PORTS, 65536)):
        try:
            return Server(number, pages)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    message = f"no port from {port} to {min(port + MAX_PORTS, 65536) - 1} is free for this user"
    raise RecipeError(message, hint="`--port 0` takes any free one")


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"r1recipes/{__version__}", ""
    timeout = IDLE_S
    server: Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def do_GET(self) -> None:
        if refusal := self._refusal():
            self._refuse(*refusal)
            return
        known_tag = self.headers.get("If-None-Match", "").strip()
        self._send(self.server.pages.answer(self.path, known_tag))

    def _refuse_method(self) -> None:
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "This server only answers GET.")

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse_method

    def _refusal(self) -> tuple[HTTPStatus, str] | None:
        """Why a request is not answered; None for one that is."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or _name_of(hosts[0]) not in NAMES:
            text = f"This server is only for {', '.join(NAMES)}."
            return HTTPStatus.MISDIRECTED_REQUEST, text
        has_body = self.headers.get("Content-Length", "0") != "0"
        if has_body or "Transfer-Encoding" in self.headers:
            return HTTPStatus.BAD_REQUEST, "A GET has no body here."
        if not self.path.startswith("/"):
            return HTTPStatus.BAD_REQUEST, "An address begins with a slash."
        return None

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        content = answer.html.encode()
        headers = headers_of_all() | {"ETag": answer.tag, "Location": answer.location}
        if content:
            headers["Content-Type"] = "text/html; charset=utf-8"
        if len(content) >= LEAST_COMPRESSED and "gzip" in self.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            content = gzip.compress(content, 1)
        if answer.status != HTTPStatus.NOT_MODIFIED:
            headers["Content-Length"] = str(len(content))
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """Answer with a line of text, and end the connection: a body may follow."""
        content = f"{text}\n".encode()
        self.send_response(status)
        headers = {"Content-Type": "text/plain; charset=utf-8", "Allow": "GET"}
        for name, value in (headers_of_all() | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library refuses by itself, such as a request that is none: in the same form, and
        without a part of the request, which its messages have."""
        self._refuse(HTTPStatus(code), HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged: a page asks every two seconds."""


def _name_of(host: str) -> str:
    """The name in a header Host, without its port."""
    name, colon, port = host.strip().lower().rpartition(":")
    return name if colon and port.isascii() and port.isdigit() else host.strip().lower()
