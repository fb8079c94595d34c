"""What the tests of sources share: a real S3 server, a real HTTP server with faults, and syncs into a folder."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.sources.address import open_source
from service.sources.sync import FOLDER, Sync
from tests.object_store import Bucket, S3Server, s3_server

MakeSync = Callable[..., Sync]


@pytest.fixture
def sync_of(tmp_path: Path) -> MakeSync:
    """Makes a sync of an address into a folder of the test's own, ``tmp_path / "models"``."""

    def make(
        address: str,
        models: Path = tmp_path / "models",
        names: tuple[str, ...] | None = None,
        pinned: int | None = None,
        served: Callable[[], set[tuple[str, int]]] = set,
        stop: Callable[[], bool] = lambda: False,
    ) -> Sync:
        (models / FOLDER).mkdir(parents=True, exist_ok=True)
        return Sync(open_source(address, models / FOLDER, names, stop), models, names, pinned, served)

    return make


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """A running S3 server."""
    with s3_server() as server:
        server.start()
        yield server


@pytest.fixture
def bucket(s3: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket of the test's own, with what it needs in the environment."""
    made = s3.bucket(re.sub("[^a-z0-9]+", "-", request.node.name[5:60].lower()).strip("-"))
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@dataclass
class WebServer:
    """A real HTTP server of files in memory, with ranges and ETags; its fields say what goes wrong, and how often."""

    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    password: str | None = None
    """What Authorization must say."""
    status: int | None = None
    cut_after: int | None = None
    """Bytes of an answer's body after which the connection is cut."""
    before_body: Callable[[str], None] = lambda path: None
    """Called when the head of an answer is out, and its body is not."""
    times: int = 10**9
    """How often ``status`` and ``cut_after`` apply."""
    url: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """What was asked for, with its headers."""

    def etag(self, path: str) -> str:
        """Return what changes with a file."""
        return self.etags.get(path, f'"{hash(self.files[path])}"')

    def status_of(self, path: str, headers: dict[str, str]) -> int:
        """Return the status of an answer."""
        if self.status and self.times > 0:
            self.times -= 1
            return self.status
        if self.password and headers.get("Authorization") != self.password:
            return 401
        if path in self.redirects:
            return 302
        if path not in self.files:
            return 404
        return 304 if headers.get("If-None-Match") == self.etag(path) else 200


@contextmanager
def web_server() -> Iterator[WebServer]:
    """Give a running server."""
    told = WebServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            told.asked.append((self.path, dict(self.headers)))
            status = told.status_of(path, dict(self.headers))
            if status == 200:
                self._file(path)
            else:
                self._head(status, 0, **({"Location": told.redirects[path]} if status == 302 else {}))

        def _file(self, path: str) -> None:
            content, etag = told.files[path], told.etag(path)
            begin, status, headers = 0, 200, {}
            if (asked := self.headers.get("Range")) and self.headers.get("If-Range") == etag:
                begin, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
                headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            self._head(status, len(content) - begin, ETag=etag, **headers)
            told.before_body(path)
            body = content[begin:]
            if told.cut_after is not None and told.times > 0 and len(body) > told.cut_after:
                told.times -= 1
                self.wfile.write(body[: told.cut_after])
                self.close_connection = True
                self.connection.close()
            else:
                self.wfile.write(body)

        def _head(self, status: int, length: int, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A running HTTP server."""
    with web_server() as server:
        yield server
