"""The service as its users run it: a process that listens on a port."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import requests

ROOT = Path(__file__).parents[2]
_PATIENCE = 60.0  # seconds; machines that run tests are busy


@dataclass
class RunningService:
    """One process of ``python -m service`` with its workers."""

    process: subprocess.Popen[bytes]
    url: str
    stderr: IO[bytes]
    grpc: str = ""  # the address of the port for gRPC, where there is one

    def get(self, path: str) -> requests.Response:
        """GET ``path`` on a connection of its own."""
        return requests.get(self.url + path, timeout=_PATIENCE)

    def predict(self, picture: bytes) -> requests.Response:
        """POST one picture on a connection of its own."""
        return requests.post(f"{self.url}/predict", files={"image": picture}, timeout=_PATIENCE)

    def wait_until_ready(self) -> None:
        """Wait until the service says that it can answer."""
        wait_for(lambda: self.status("/health/ready") == 200, self.log)

    def status(self, path: str) -> int | None:
        """Return the status of GET ``path``; None where nobody answers."""
        try:
            return self.get(path).status_code
        except requests.ConnectionError:
            return None

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_PATIENCE)

    def log(self) -> str:
        """Return what was written to stderr so far."""
        self.stderr.seek(0)
        return self.stderr.read().decode()

    def kill(self) -> None:
        """End the process and its workers, however they are."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # unlike SIGKILL it lets the service remove its temporary folder
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.stderr.close()


def start(environment: Mapping[str, str], before_exec: Callable[[], None] | None = None) -> RunningService:
    """Start the service on a free port with one worker, with ``environment`` and nothing else of its settings.

    ``before_exec`` is called in the child before the service begins.
    """
    port = free_port()
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by RunningService.kill
    process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        # Without HOME the C library asks a name service for it, by a socket.
        env={
            "PATH": os.environ["PATH"],
            "HOME": tempfile.gettempdir(),  # TensorFlow and Matplotlib write there
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "WORKERS": "1",
            **environment,
        },
        stderr=stderr,
        start_new_session=True,
        preexec_fn=before_exec,
    )
    grpc = f"127.0.0.1:{environment['GRPC_PORT']}" if "GRPC_PORT" in environment else ""
    return RunningService(process, f"http://127.0.0.1:{port}", stderr, grpc)


def run_to_the_end(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m service`` until it ends by itself, with these ``arguments`` and this ``environment``."""
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def workers(running: RunningService) -> list[int]:
    """Return the process ids of the workers."""
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text()
    return [int(process) for process in children.split()]


def metric(running: RunningService, name: str) -> float:
    """Return the sum of all samples of a metric."""
    text = running.get("/metrics").text
    return sum(float(value) for value in re.findall(rf"^darkroom_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def connect(running: RunningService) -> socket.socket:
    """Open a connection to the service."""
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    [port] = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Return different TCP ports that nobody listens on, at any address."""
    with contextlib.ExitStack() as held:
        return [held.enter_context(socket.create_server(("", 0))).getsockname()[1] for _ in range(count)]


def wait_for(condition: Callable[[], bool], explain: Callable[[], str]) -> None:
    """Wait until ``condition`` holds; fail with what ``explain`` returns where it does not in time."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.02)
