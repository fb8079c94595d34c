"""A server on a real socket whose answers a test decides: for what a healthy service does not do when it is asked."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Call:
    """One request as it arrived."""

    number: int  # from 0
    path: str
    headers: Any
    body: bytes
    came: float = field(default_factory=time.monotonic)

    @property
    def pictures(self) -> list[bytes]:
        """Return the content of the form's files."""
        boundary = b"--" + self.headers.get_boundary().encode()
        return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in self.body.split(boundary)[1:-1]]


@dataclass
class Answer:
    """What to answer. Without a status the connection is closed without a word."""

    status: int | None = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds


Script = Callable[[Call], Answer]


def classified(call: Call, delay: float = 0.0) -> Answer:
    """Answer as the service does; each picture is labelled with its own content."""
    results = [
        {"index": index, "filename": None, "predictions": [{"label": content.decode(), "probability": 0.5}]}
        for index, content in enumerate(call.pictures)
    ]
    body = {"success": True, "results": results, "model": {"name": "scripted", "version": 7}}
    return Answer(200, body, delay=delay)


def error(status: int, name: str = "name", message: str = "Message.", **headers: str) -> Answer:
    """Answer with one of the service's errors; an underscore in a header's name stands for a hyphen."""
    body = {"success": False, "error": name, "message": message}
    return Answer(status, body, {key.replace("_", "-"): value for key, value in headers.items()})


class ScriptedServer:
    """Answers what ``script`` returns for each request, and keeps what was asked."""

    def __init__(self, script: Script = classified) -> None:
        self.calls: list[Call] = []
        self.connections = 0
        self.at_once = 0  # the most requests that were in work together
        self._script = script
        self._lock = threading.Lock()
        self._in_work = 0
        self._stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Stop answering, and close the port."""
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, headers: Any, body: bytes) -> Answer:
        """Note a request and return what to answer, after the delay that the answer asks for."""
        with self._lock:
            call = Call(len(self.calls), path, headers, body)
            self.calls.append(call)
            self._in_work += 1
            self.at_once = max(self.at_once, self._in_work)
        answer = self._script(call)
        self._stopped.wait(answer.delay)
        with self._lock:
            self._in_work -= 1
        return answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # connections are kept

            def setup(self) -> None:
                super().setup()
                server.connections += 1

            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                answer = server.answer(
                    self.path, self.headers, self.rfile.read(int(self.headers.get("Content-Length", 0)))
                )
                if answer.status is None:
                    self.close_connection = True
                    return
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # the client is gone, as some tests want it
                    self.close_connection = True

        return Handler
