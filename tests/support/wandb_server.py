"""A W&B server for the tests: it runs in this process, on 127.0.0.1, and stores what clients send.

It answers what wandb 0.31 and wandb-workspaces 0.4 send when runs are logged, continued and synced,
artifacts are uploaded, sweeps are created and run, reports are saved, shared and read, and
workspace views are saved. Any other operation is answered with an error and listed in `unknown`.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote

from tests.support.wandb_answers import ANSWERS, ENTITY, Answer
from tests.support.wandb_records import FakeArtifact, FakeReport, FakeRun, FakeSweep

KEY = "0123456789" * 4


class UnknownOperation(Exception):
    """A client sent an operation that this server does not support."""


class QuietServer(ThreadingHTTPServer):
    """An HTTP server that does not report clients that end with a connection open."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Report an error of this server, but not a lost connection."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@dataclass(eq=False)
class WandbServer:
    """Runs, sweeps, reports and projects of a W&B server; it serves within a `with` block."""

    refuses_keys: bool = False
    runs: dict[str, FakeRun] = field(default_factory=dict)
    sweeps: dict[str, FakeSweep] = field(default_factory=dict)
    reports: dict[str, FakeReport] = field(default_factory=dict)
    artifacts: dict[str, FakeArtifact] = field(default_factory=dict)
    workspaces: dict[str, Answer] = field(default_factory=dict)
    """The variables of the last upsert of each workspace view, by its id."""
    projects: list[str] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    """The names of all GraphQL operations, in the order of the requests."""
    unknown: list[str] = field(default_factory=list)
    """The operations and paths that it does not support."""
    requests: int = 0
    port: int = 0

    def __enter__(self) -> WandbServer:
        self._lock = threading.Lock()
        self._http = QuietServer(("127.0.0.1", 0), handler_of(self))
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._thread.join(5)
        self._http.server_close()

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self, folder: Path) -> dict[str, str]:
        """Return environment variables that make a wandb client use this server and `folder`."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_DIR": str(folder),
            "WANDB_CONFIG_DIR": str(folder / "wandb-config"),
            "WANDB_CACHE_DIR": str(folder / "wandb-cache"),
            "WANDB_DATA_DIR": str(folder / "wandb-data"),
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_INIT_TIMEOUT": "20",
            "WANDB_FINISH_TIMEOUT": "20",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Answer]:
        """Return the HTTP status and the JSON that answer a request."""
        with self._lock:
            self.requests += 1
            if self.refuses_keys:
                return 401, {"errors": [{"message": "invalid API key"}]}
            if path == "/graphql":
                return self._graphql(json.loads(body))
            if path.startswith("/sdk/otel/"):
                return 200, {}
            if stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path):
                self.runs[stream[1]].receive(json.loads(body))
                return 200, {}
            if upload := re.fullmatch(r"/uploads/([^/]+)/(.+)", path):
                self.runs[upload[1]].files[upload[2]] = body
                return 200, {}
            if upload := re.fullmatch(r"/artifacts/([^/]+)/(.*)", path):
                self.artifacts[upload[1]].files[unquote(upload[2])] = body
                return 200, {}
            self.unknown.append(f"{method} {path}")
            return 404, {"errors": [{"message": f"no such path: {path}"}]}

    def _graphql(self, request: Answer) -> tuple[int, Answer]:
        named = re.search(r"\b(?:query|mutation)\s+(\w+)", request["query"])
        name = named[1] if named else ""
        self.operations.append(name)
        try:
            if name not in ANSWERS:
                raise UnknownOperation(name)
            return 200, {"data": ANSWERS[name](self, request.get("variables") or {})}
        except UnknownOperation as error:
            self.unknown.append(str(error))
            return 400, {"errors": [{"message": f"unknown operation {error}"}]}
        except KeyError as error:
            self.unknown.append(f"{name} {error}")
            return 404, {"errors": [{"message": f"{name} asks for {error}"}]}

    def project(self, name: str | None) -> Answer:
        """Return a project as a GraphQL object; it is created if it does not exist."""
        name = name or "uncategorized"
        if name not in self.projects:
            self.projects.append(name)
        place = self.projects.index(name) + 1
        return {
            "__typename": "Project",
            "id": f"project-{place}",
            "internalId": str(place),
            "name": name,
            "entityName": ENTITY,
            "entity": {"id": "entity-1", "name": ENTITY},
            "createdAt": "2026-01-01T00:00:00Z",
            "isBenchmark": False,
            "user": None,
            "description": None,
            "access": None,
            "views": None,
        }


def handler_of(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    """Return an HTTP request handler that answers from this server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                body = self.chunks()
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            status, answer = server.answer(self.command, self.path.partition("?")[0], body)
            said = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_PUT = respond

        def chunks(self) -> bytes:
            """Return a body that is sent in chunks."""
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    return Handler
