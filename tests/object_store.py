"""A real S3 server, moto's, in a process of its own, with a proxy in front that spoils what passes through it."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

from tests.service.running import free_port, wait_for

KEY, SECRET = "darkroom-key", "darkroom-secret"  # moto takes any
_LOGIN: Any = {
    "access_key_id": KEY,
    "secret_access_key": SECRET,
    "region": "us-east-1",
    "client_options": {"allow_http": True},
}


@dataclass
class Bucket:
    """A bucket of a running server: how it is reached, and what is in it."""

    url: str
    name: str

    @property
    def address(self) -> str:
        """The bucket, as MODEL_SOURCE names it."""
        return f"s3://{self.name}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
        }

    def put(self, path: str, content: bytes) -> None:
        """Write an object."""
        obstore.put(self._store, path, content)

    def get(self, path: str) -> bytes:
        """Read an object."""
        return bytes(obstore.get(self._store, path).bytes())

    def delete(self, path: str) -> None:
        """Remove an object."""
        obstore.delete(self._store, path)

    @property
    def _store(self) -> S3Store:
        return S3Store(self.name, endpoint=self.url, **_LOGIN)

    def put_version(self, version: Path, name: str, number: int | str) -> None:
        """Write a version as any tool would that copies folders; its metadata come last."""
        files = sorted(
            (path for path in version.rglob("*") if path.is_file()), key=lambda path: path.name == "metadata.json"
        )
        for file in files:
            self.put(f"{name}/{number}/{file.relative_to(version).as_posix()}", file.read_bytes())


@dataclass
class S3Server:
    """A server process that can be stopped, and started again at the same port with nothing in it."""

    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Bucket:
        """Start it, and make a bucket."""
        command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._answers, lambda: "the S3 server does not answer")
        return self.bucket("models-of-tests")

    def bucket(self, name: str) -> Bucket:
        """Make a bucket, which has a name of three letters or more."""
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        return Bucket(self.url, name)

    def stop(self) -> None:
        """Stop it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Give a server that is not started yet; it is stopped afterwards."""
    server = S3Server(free_port())
    try:
        yield server
    finally:
        server.stop()


@dataclass
class Proxy:
    """Passes connections on to ``port``, and spoils what comes back as its fields say; they may change at any time."""

    port: int
    cut_after: int | None = None
    """Bytes of an answer after which a connection is cut, as often as ``times`` says."""
    times: int = 10**9
    replace: tuple[bytes, bytes] | None = None
    """What comes back with other bytes of the same length, as often as ``times`` says."""
    pause: float = 0.0
    """Seconds between two pieces of an answer."""
    deaf: bool = False
    """Whether connections are taken and nothing is answered."""
    connections: int = 0
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        """Take connections, each in a thread, until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pass_on(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.port)) as server:
            threading.Thread(target=_copy, args=(client, server), daemon=True).start()
            passed = 0
            while block := server.recv(16 * 1024):
                while self.deaf:
                    time.sleep(0.05)
                if self.replace and self.times and self.replace[0] in block:
                    self.times -= 1
                    block = block.replace(*self.replace)
                time.sleep(self.pause)
                passed += len(block)
                if self.cut_after is not None and passed > self.cut_after and self.times:
                    self.times -= 1
                    client.sendall(block[: max(0, len(block) - (passed - self.cut_after))])
                    break
                client.sendall(block)
            client.shutdown(socket.SHUT_RDWR)  # closing it alone would wait for the other thread


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(64 * 1024):
            target.sendall(block)


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    """Give a proxy in front of the server at ``port`` of this machine."""
    running = Proxy(port)
    threading.Thread(target=running.serve, daemon=True).start()
    try:
        yield running
    finally:
        running.close()
