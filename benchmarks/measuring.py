"""What the benchmarks share: servers as processes, a load generator, pictures, memory and times."""

from __future__ import annotations

import http.client
import io
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
JPEG = "image/jpeg"

_PATIENCE = 60.0  # seconds until the first answer
_WARM_UP = 50
_PAUSE = 0.5  # seconds
_SCRIPT = Path(__file__).with_name("post.lua")
_BOUNDARY = "darkroom-benchmark"


class Body(NamedTuple):
    """What a load generator posts."""

    content: bytes
    content_type: str
    headers: tuple[str, ...] = ()


class Load(NamedTuple):
    """What came of a load: good and refused answers a second, latencies in milliseconds, and what got no answer."""

    rate: float
    median: float
    p99: float
    refused: float
    errors: int


def processor() -> str:
    """Return the processor's name."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()


def drawings(height: int, width: int) -> list[npt.NDArray[np.uint8]]:
    """Return the page's sample drawings as uint8 [height, width, 3]: pictures, which noise is not to a decoder."""
    files = sorted((ROOT / "service" / "web" / "static" / "samples").glob("*.webp"))
    images = (Image.open(file).convert("RGB").resize((width, height), Image.Resampling.LANCZOS) for file in files)
    return [np.asarray(image, np.uint8) for image in images]


def jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return uint8 ``pixels``, [height, width, 3], as a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def form(field: str, files: Sequence[bytes]) -> Body:
    """Return ``files`` as a multipart form, as curl -F sends it."""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="photo.jpg"\r\n'
    parts = [f"{head}Content-Type: {JPEG}\r\n\r\n".encode() + file + b"\r\n" for file in files]
    content = b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()
    return Body(content, f"multipart/form-data; boundary={_BOUNDARY}")


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the time of the block."""
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, start_new_session=True
    )
    try:
        yield process
        process.terminate()
        process.wait(30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def service(port: int, environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of our service on ``port``; for ``running``."""
    own = {"HOST": "127.0.0.1", "PORT": str(port), "DRAIN_SECONDS": "0", "LOG_LEVEL": "warning"}
    return [sys.executable, "-m", "service"], {**environment, **own}


def first_answer(port: int, body: Body, process: subprocess.Popen[bytes]) -> float:
    """Return the seconds from here, right after the start of the process, to the first prediction."""
    started = time.perf_counter()
    while time.perf_counter() - started < _PATIENCE:
        if process.poll() is not None:
            sys.exit("error: the server ended; its message is above")
        try:
            if post(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE), body) == 200:
                return time.perf_counter() - started
        except ConnectionError:
            time.sleep(0.005)
    sys.exit("error: the server did not answer")


def post(connection: http.client.HTTPConnection, body: Body, path: str = "/predict") -> int:
    """Post ``body`` and return the status of the answer."""
    connection.request("POST", path, body.content, {"Content-Type": body.content_type})
    response = connection.getresponse()
    response.read()
    return response.status


def times(action: Callable[[], object], count: int) -> list[float]:
    """Return the seconds that each of ``count`` calls took, after a warm-up."""
    for _ in range(_WARM_UP):
        action()
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return seconds


def memory(process: int) -> int:
    """Return the bytes that a process and its children hold, shared pages divided among them (PSS)."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    [kilobytes] = re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(kilobytes) * 1024 + sum(memory(int(child)) for child in children)


def require_wrk() -> None:
    """End the program where the load generator is missing."""
    if not shutil.which("wrk"):
        sys.exit(
            "error: the load generator wrk is not installed (Debian: apt-get install wrk; macOS: brew install wrk)"
        )


def load(url: str, body: Body, connections: int, seconds: float, folder: Path) -> Load:
    """Post ``body`` to ``url`` from ``connections`` connections, each as fast as it is answered, by wrk."""
    file = folder / "body"
    file.write_bytes(body.content)
    lines = "\n".join((f"Content-Type: {body.content_type}", *body.headers))
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}", "-s", str(_SCRIPT), url],
        env={**os.environ, "BODY": str(file), "HEADERS": lines},
        capture_output=True,
        text=True,
        check=True,
    )
    time.sleep(_PAUSE)  # what was still under way would fill the queue of the next load
    told = json.loads(done.stdout.splitlines()[-1])
    return Load(
        told["requests"] / told["seconds"],
        told["median"],
        told["p99"],
        told["refused"] / told["seconds"],
        told["errors"],
    )
