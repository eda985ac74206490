"""The page of a report, served to this machine alone, with lines evaluated on demand."""

import json
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mining import InputError
from mining.reporting.encoding import as_json
from mining.reporting.worker import Watch, Worker

log = logging.getLogger(__name__)

#: Evaluates what a page asks for, and returns what it is to show; tells how far it is.
Evaluate = Callable[["Request", Watch], Mapping[str, Any]]
#: Bytes of the longest request, and points of the longest line.
_LONGEST, _MOST_POINTS = 4096, 1001
_ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    """The line that a page asks for."""

    surface: int  # its number on the page
    start: tuple[float, float] | None  # (α, β); None: the line has θ in its middle
    end: tuple[float, float]
    num: int  # points

    @classmethod
    def read(cls, content: Any, num_surfaces: int) -> "Request":
        """Take the values of a request.

        Args:
            content: A mapping of the fields, as JSON has them.
            num_surfaces: How many surfaces the page has.

        Raises:
            InputError: If a value is missing or of another kind, or the ends are one point.
        """
        keys = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or set(content) != keys:
            raise InputError(f"A request is a mapping of {', '.join(sorted(keys))}.")
        start, end = content["start"], _pair("end", content["end"])
        start = None if start is None else _pair("start", start)
        if end == ((0.0, 0.0) if start is None else start):
            raise InputError(f"A line joins two different points, got {end} twice.")
        surface = _integer("surface", content["surface"], 0, num_surfaces - 1)
        return cls(surface, start, end, _integer("num", content["num"], 2, _MOST_POINTS))


def _integer(key: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{key} must be an integer from {low} to {high}, got {value!r}.")
    return value


def _pair(key: str, value: Any) -> tuple[float, float]:
    fits = isinstance(value, list) and len(value) == 2
    if not fits or not all(type(v) in (int, float) and abs(v) < 1e9 for v in value):
        raise InputError(f"{key} must be two finite numbers, got {value!r}.")
    return float(value[0]), float(value[1])


class Server(ThreadingHTTPServer):
    """Serves a page, and evaluates lines of its surfaces.

    It listens on the loopback interface. Requests must have the token in their path and the
    address of the server as their ``Host``, so that other users and other web pages get nothing.

    Args:
        page: HTML.
        num_surfaces: How many surfaces it shows.
        evaluate: Evaluates one line.
        port: 0 takes a free one.

    Raises:
        OSError: If the port is taken.
    """

    daemon_threads = True  # a browser keeps connections open; they need not end by themselves

    def __init__(self, page: str, num_surfaces: int, evaluate: Evaluate, port: int = 0) -> None:
        self.page, self.num_surfaces = page.encode(), num_surfaces
        self.evaluate, self.token = evaluate, secrets.token_urlsafe(24)
        self.worker = Worker()  # first: where the port is taken, what follows calls server_close
        super().__init__((_ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        """The address of the page, with the token."""
        return f"http://{_ADDRESS}:{self.server_port}/{self.token}/"

    def server_close(self) -> None:
        """Stop listening, and end the evaluation that runs, at its next chunk of points."""
        super().server_close()
        self.worker.close()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; the names of its methods are those of the standard library."""

    server: Server
    server_version, sys_version = "mining", ""
    timeout = 30  # seconds for which a silent connection is kept

    def do_GET(self) -> None:
        """Send the page, or tell how far a job is."""
        path = self._path()
        if path == "":
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif path is not None:
            self._about_job(path, cancel=False)

    def do_DELETE(self) -> None:
        """Cancel a job."""
        path = self._path()
        if path is not None:
            self._about_job(path, cancel=True)

    def do_POST(self) -> None:
        """Take the request for a line."""
        path = self._path()
        if path is None:
            return
        if path != "lines":
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such address.")
            return
        server = self.server
        try:
            request = Request.read(self._content(), server.num_surfaces)
            job = server.worker.submit(lambda watch: server.evaluate(request, watch))
        except InputError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        self._tell(HTTPStatus.ACCEPTED, job.describe())

    def _content(self) -> Any:
        """Read the JSON of a request."""
        # A form on another page cannot send this type without asking first.
        if self.headers.get_content_type() != "application/json":
            raise InputError("A request must be application/json.")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or not 0 < int(length) <= _LONGEST:
            raise InputError(f"A request must have 1 to {_LONGEST} bytes.")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise InputError(f"A request must be JSON: {error}.") from error

    def _about_job(self, path: str, *, cancel: bool) -> None:
        number = re.fullmatch(r"jobs/([0-9]{1,9})", path)
        job = self.server.worker.find(int(number[1])) if number else None
        if job is None:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such address.")
            return
        if cancel:
            job.cancel.set()
        self._tell(HTTPStatus.OK, job.describe())

    def _path(self) -> str | None:
        """Return what follows the token; ``None`` after refusing a request without it."""
        names = {f"{host}:{self.server.server_port}" for host in (_ADDRESS, "localhost")}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in names or (
            origin is not None and origin.removeprefix("http://") not in names
        ):
            self._refuse(HTTPStatus.FORBIDDEN, "This address is not served.")
            return None
        parts = self.path.partition("?")[0].split("/", 2)
        own = self.server.token.encode()
        if len(parts) < 3 or not secrets.compare_digest(parts[1].encode(), own):
            self._refuse(HTTPStatus.FORBIDDEN, "The address must have the token of the server.")
            return None
        return parts[2]

    def _refuse(self, status: HTTPStatus, error: str) -> None:
        self._tell(status, {"error": error})

    def _tell(self, status: HTTPStatus, content: Mapping[str, Any]) -> None:
        self._send(status, as_json(content).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),  # the address holds the token
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log requests for whoever looks for faults."""
        log.debug(format, *args)
