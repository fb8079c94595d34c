"""Measure the service as one client sees it: start, memory, latency of a single picture.

    python benchmarks/latency.py --requests 500 --output latency.json

It starts ``python -m service`` on a free port with the settings of the environment, so that
``ENGINE=tensorflow python benchmarks/latency.py`` measures that engine. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, the folder of the packages is not on the path
    sys.path.insert(0, str(ROOT))

from artifact import latest, validate, version_path  # noqa: E402
from service.engine import load, usable_cores  # noqa: E402
from service.registry import default_model  # noqa: E402
from service.settings import Settings  # noqa: E402

_WARM_UP = 50
_PATIENCE = 60.0  # seconds until the first answer


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Measure, print, and write the figures as JSON where ``--output`` asks for it."""
    options = _parser().parse_args(arguments)
    settings = Settings.from_environment(environment)
    version = _version(settings)
    side = validate(version).input
    picture = _jpeg(side.height, side.width)
    figures: dict[str, Any] = {"model": f"{version.parent.name}/{version.name}", **_conditions(settings)}
    port = _free_port()
    with _service(port, environment) as process:
        figures["seconds_to_first_answer"] = round(_first_answer(port, picture, process), 3)
        latencies = _request_latencies(port, picture, options.requests)
        figures["memory_megabytes"] = round(_memory(process.pid) / 1e6, 1)
    figures |= _summary("request", latencies)
    figures |= _summary("engine", _engine_latencies(settings, version, options.requests))
    _print(figures)
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500, help="measured requests, after a warm-up (default: 500)")
    parser.add_argument("--output", type=Path, help="write the figures to this file as JSON")
    return parser


def _version(settings: Settings) -> Path:
    name = settings.model_name or default_model(settings.model_dir)
    version = settings.model_version or (latest(settings.model_dir, name) if name else None)
    if name is None or version is None:
        sys.exit(f"error: there is no model version in {settings.model_dir}; set MODEL_DIR")
    return version_path(settings.model_dir, name, version)


def _conditions(settings: Settings) -> dict[str, Any]:
    return {
        "engine": settings.engine,
        "precision": settings.precision,
        "workers": settings.workers,
        "cores": usable_cores(),
        "processor": _processor(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()


def _jpeg(height: int, width: int) -> bytes:
    """Return a JPEG of random colours in the size of the model's input."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _service(port: int, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    own = {**environment, "HOST": "127.0.0.1", "PORT": str(port), "DRAIN_SECONDS": "0", "LOG_LEVEL": "warning"}
    process = subprocess.Popen(
        [sys.executable, "-m", "service"], env={**own, "PYTHONPATH": str(ROOT)}, start_new_session=True
    )
    try:
        yield process
        process.terminate()
        process.wait(30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _first_answer(port: int, picture: bytes, process: subprocess.Popen[bytes]) -> float:
    """Return the seconds from here, right after the start of the process, to the first prediction."""
    started = time.perf_counter()
    while time.perf_counter() - started < _PATIENCE:
        if process.poll() is not None:
            sys.exit("error: the service ended; its message is above")
        try:
            if _post(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE), picture) == 200:
                return time.perf_counter() - started
        except ConnectionError:
            time.sleep(0.005)
    sys.exit("error: the service did not answer")


def _post(connection: http.client.HTTPConnection, picture: bytes) -> int:
    connection.request("POST", "/predict", picture, {"Content-Type": "image/jpeg"})
    response = connection.getresponse()
    response.read()
    return response.status


def _request_latencies(port: int, picture: bytes, count: int) -> list[float]:
    """Return the seconds of ``count`` requests, one after the other on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)

    def ask() -> None:
        status = _post(connection, picture)
        if status != 200:
            sys.exit(f"error: the service answered {status}")

    latencies = _times(ask, count)
    connection.close()
    return latencies


def _engine_latencies(settings: Settings, version: Path, count: int) -> list[float]:
    """Return the seconds of ``count`` single images in the engine alone, in this process."""
    engine = load(settings.engine, version, settings.precision, threads=usable_cores())
    size = validate(version).input
    images = np.zeros((1, size.height, size.width, 3), np.uint8)
    return _times(lambda: engine.predict(images), count)


def _times(action: Callable[[], object], count: int) -> list[float]:
    for _ in range(_WARM_UP):
        action()
    times = []
    for _ in range(count):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return times


def _memory(process: int) -> int:
    """Return the bytes that a process and its children hold, shared pages divided among them (PSS)."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    [kilobytes] = re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(kilobytes) * 1024 + sum(_memory(int(child)) for child in children)


def _summary(name: str, seconds: list[float]) -> dict[str, float]:
    milliseconds = [value * 1000 for value in seconds]
    return {
        f"{name}_median_milliseconds": round(statistics.median(milliseconds), 3),
        f"{name}_p99_milliseconds": round(statistics.quantiles(milliseconds, n=100)[98], 3),
    }


def _print(figures: Mapping[str, Any]) -> None:
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):32} {value}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
