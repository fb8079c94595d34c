"""What the benchmarks share: servers as processes, a load generator, pictures, memory and times.

Linux only: memory and processor time of processes are read from /proc.
"""

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
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
JPEG = "image/jpeg"

_PATIENCE = 60.0  # seconds until the first answer
_PATIENCE_AT_THE_END = 30.0
_WARM_UP = 50
_PAUSE = 0.5  # seconds
_SCRIPT = Path(__file__).with_name("post.lua")
_BOUNDARY = "darkroom-benchmark"


class ServerFailed(Exception):
    """A server did not start, or ended; the message says which."""


class Body(NamedTuple):
    """What a load generator posts; where ``different`` are digits in it, each request has another number there."""

    content: bytes
    content_type: str
    headers: tuple[str, ...] = ()
    different: str = ""


class Load(NamedTuple):
    """What came of a load: good and refused answers a second, and latencies in milliseconds.

    ``late`` is how often wrk, which looks every two seconds, found a client that had waited for longer than that;
    ``broken`` is how many connections failed.
    """

    rate: float
    median: float
    p99: float
    longest: float
    refused: float
    late: int
    broken: int


def processor() -> str:
    """Return the processor's name."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()


def drawings(height: int, width: int) -> list[npt.NDArray[np.uint8]]:
    """Return the page's sample drawings as uint8 [height, width, 3]: pictures, which noise is not to a decoder."""
    files = sorted((ROOT / "service" / "web" / "static" / "samples").glob("*.webp"))
    images = (Image.open(file).convert("RGB").resize((width, height), Image.Resampling.LANCZOS) for file in files)
    return [np.asarray(image, np.uint8) for image in images]


def photograph(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return uint8 [height, width, 3]: a drawing with a camera's noise, which makes its file as large as theirs."""
    samples = drawings(height, width)
    noise = np.random.default_rng(seed).normal(0, 5, (height, width, 1))
    return np.clip(samples[seed % len(samples)] + noise, 0, 255).astype(np.uint8)


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
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the time of the block; what it prints goes to the file ``log`` where that is given."""
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else None
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            start_new_session=True,
            stdout=output,
            stderr=output,
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server, and whatever it leaves behind."""
    left = tree(process.pid) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(_PATIENCE_AT_THE_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in left:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def first_answer(port: int, body: Body, process: subprocess.Popen[bytes]) -> float:
    """Return the seconds from here, right after the start of the process, to the first prediction.

    Raises:
        ServerFailed: the process ended, or there was no prediction within a minute.
    """
    started = time.perf_counter()
    while time.perf_counter() - started < _PATIENCE:
        if process.poll() is not None:
            raise ServerFailed(f"it ended with exit code {process.returncode}")
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)) as connection:
                if post(connection, body) == 200:
                    return time.perf_counter() - started
        except ConnectionError:
            pass
        time.sleep(0.005)
    raise ServerFailed(f"it gave no answer within {_PATIENCE:.0f} s")


def post(connection: http.client.HTTPConnection, body: Body, path: str = "/predict") -> int:
    """Post ``body`` and return the status of the answer."""
    connection.request("POST", path, body.content, {"Content-Type": body.content_type})
    response = connection.getresponse()
    response.read()
    return response.status


def times(action: Callable[[], object], count: int, warm_up: int = _WARM_UP) -> list[float]:
    """Return the seconds that each of ``count`` calls took, after ``warm_up`` calls."""
    for _ in range(warm_up):
        action()
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return seconds


def tree(process: int) -> list[int]:
    """Return the ids of a process and of all that it started, and these started, parents first."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    except FileNotFoundError:  # it has ended meanwhile
        return []
    return [process, *(found for child in children for found in tree(int(child)))]


def memory(process: int) -> int:
    """Return the bytes that a process and its children hold, shared pages divided among them (PSS)."""
    rollups = (Path(f"/proc/{found}/smaps_rollup").read_text(encoding="ascii") for found in tree(process))
    return sum(int(kilobytes) * 1024 for text in rollups for kilobytes in re.findall(r"(?m)^Pss:\s+(\d+) kB", text))


def core_seconds(process: int) -> float:
    """Return the seconds of a core that a process and its children have taken so far."""
    ticks = 0
    for found in tree(process):
        fields = Path(f"/proc/{found}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime
    return ticks / os.sysconf("SC_CLK_TCK")


def freeze(process: int) -> None:
    """Stop a process and its children where they are, so that they take nothing of the cores."""
    for found in tree(process):
        os.kill(found, signal.SIGSTOP)


def thaw(process: int) -> None:
    """Let what was frozen go on, the children first, so that nobody takes them for dead."""
    for found in reversed(tree(process)):
        os.kill(found, signal.SIGCONT)


def require_wrk() -> None:
    """End the program where the load generator is missing."""
    if not shutil.which("wrk"):
        sys.exit(
            "error: the load generator wrk is not installed (Debian: apt-get install wrk; macOS: brew install wrk)"
        )


def load(url: str, body: Body, connections: int, seconds: float, folder: Path, *, pause: float = 0.0) -> Load:
    """Post ``body`` to ``url`` from ``connections`` connections, each as fast as it is answered, by wrk.

    With a ``pause``, in seconds, each waits so long before it asks again.

    Raises:
        ServerFailed: nobody listens there.
    """
    file = folder / "body"
    file.write_bytes(body.content)
    lines = "\n".join((f"Content-Type: {body.content_type}", *body.headers))
    variables = {"BODY": str(file), "HEADERS": lines, "PAUSE": str(round(pause * 1000)), "DIFFERENT": body.different}
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}", "-s", str(_SCRIPT), url],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServerFailed("it listens no longer")
    time.sleep(_PAUSE)  # what was still under way would fill the queue of the next load
    told = json.loads(done.stdout.splitlines()[-1])
    return Load(
        told["requests"] / told["seconds"],
        told["median"],
        told["p99"],
        told["longest"],
        told["refused"] / told["seconds"],
        told["late"],
        told["broken"],
    )
