"""Compare the service with two servers that people write by hand, and with what the processor can do without HTTP.

    python benchmarks/compare.py --rounds 3 --seconds 5 --output compare.json

All servers run at once and are asked in turn, in alternating order; medians over the rounds are printed as one table of
ratios. The load generator, wrk, shares the cores with them. Settings of the service come from the environment, such as
PRECISION=bfloat16. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import numpy as np
import requests

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, the folder of the packages is not on the path
    sys.path.insert(0, str(ROOT))

from artifact import latest, read_metadata, version_path  # noqa: E402
from benchmarks.measuring import (  # noqa: E402
    JPEG,
    Body,
    Load,
    drawings,
    first_answer,
    form,
    free_port,
    jpeg,
    load,
    memory,
    post,
    processor,
    require_wrk,
    running,
    service,
    times,
)
from machine import usable_cores  # noqa: E402
from service.inference.registry import default_model  # noqa: E402
from service.protocols.open_inference.messages import BINARY, JSON_LENGTH  # noqa: E402
from service.settings import Settings  # noqa: E402

_BATCH = 64
_OURS = "Darkroom"
_RIVALS = {
    "Flask, gunicorn sync, TensorFlow": ("gunicorn", "--log-level=error", "--bind=127.0.0.1:{port}", "tutorial:app"),
    "FastAPI, uvicorn, TensorFlow": ("uvicorn", "--log-level=error", "--no-access-log", "--port={port}", "fast:app"),
}
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}
_PHONE = (3024, 4032)  # pixels: 12 megapixels
_CROWD = 1024  # connections of an overload
_PEAK_SECONDS = 5.0
_PROBE_PAUSE = 0.05  # seconds

Figures = dict[str, Any]


class Work(NamedTuple):
    """One kind of load on one server."""

    name: str
    server: str
    path: str
    body: Body
    connections: int


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Measure, print the table, and write the figures as JSON where ``--output`` asks for it."""
    options = _parser().parse_args(arguments)
    require_wrk()
    _allow_many_files()
    settings = Settings.from_environment(environment)
    version = _version(settings)
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure(options, version, environment, Path(folder))
    figures |= _conditions(settings, version)
    print(_table(figures))
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=3, help="times that everything is measured (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default: %(default)s)")
    parser.add_argument(
        "--overload", type=float, default=60.0, metavar="SECONDS", help="of the overload (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="write the figures to this file as JSON")
    return parser


def _allow_many_files() -> None:
    """Let the load generator have as many connections as the overload needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(2 * _CROWD, hard)), hard))


def _version(settings: Settings) -> Path:
    name = settings.model_name or default_model(settings.model_dir)
    version = settings.model_version or (latest(settings.model_dir, name) if name else None)
    if name is None or version is None:
        sys.exit(f"error: there is no model version in {settings.model_dir}; set MODEL_DIR")
    return version_path(settings.model_dir, name, version).resolve()


def _conditions(settings: Settings, version: Path) -> Figures:
    return {
        "model": f"{version.parent.name}/{version.name}",
        "precision": settings.precision,
        "workers": settings.workers,
        "cores": usable_cores(),
        "processor": processor(),
        "python": platform.python_version(),
    }


def _measure(options: argparse.Namespace, version: Path, environment: Mapping[str, str], folder: Path) -> Figures:
    size = read_metadata(version).input
    pictures = drawings(size.height, size.width)
    images = np.stack([pictures[index % len(pictures)] for index in range(_BATCH)])
    files = [jpeg(image) for image in images]
    single, phone = form("image", files[:1]), _photograph()
    with ExitStack() as stack:
        ports = {name: stack.enter_context(_rival(name, version, single)) for name in _RIVALS}
        port = free_port()
        process = stack.enter_context(running(*service(port, environment)))
        figures: Figures = {"start_seconds": first_answer(port, single, process)}
        ports[_OURS] = port
        loads: dict[str, list[Load]] = {}
        ceilings: list[Figures] = []
        works = _works(list(ports), single, files, images, version.parent.name)
        for number in range(options.rounds):
            for work in works if number % 2 == 0 else reversed(works):
                address = f"http://127.0.0.1:{ports[work.server]}{work.path}"
                load(address, work.body, work.connections, 1, folder)  # warm-up
                loads.setdefault(f"{work.server}: {work.name}", []).append(
                    load(address, work.body, work.connections, options.seconds, folder)
                )
            ceilings.append(_ceiling(version, environment, options.seconds))
        figures["memory_megabytes"] = memory(process.pid) / 1e6
        figures["loads"] = {name: _medians(found) for name, found in loads.items()}
        figures["ceiling"] = {key: median(found[key] for found in ceilings) for key in ceilings[0]}
        figures["phone"] = _phone(port, process.pid, phone)
        figures["overload"] = _overload(port, single, options.overload, folder)
    return figures


@contextmanager
def _rival(name: str, version: Path, body: Body) -> Iterator[int]:
    """Run one of the rivals for the time of the block; give its port."""
    port = free_port()
    program, *rest = (word.format(port=port) for word in _RIVALS[name])
    command = [sys.executable, "-m", program, *rest[:-1], f"benchmarks.rivals.{rest[-1]}"]
    with running(command, {"MODEL": str(version), **_QUIET}) as process:
        first_answer(port, body, process)
        yield port


def _photograph() -> Body:
    """Return a JPEG of 12 megapixels with the noise of a camera, which makes it as large as theirs."""
    pixels = drawings(*_PHONE)[0]
    noise = np.random.default_rng(0).normal(0, 5, pixels.shape[:2])[..., np.newaxis]
    return Body(jpeg(np.clip(pixels + noise, 0, 255).astype(np.uint8)), JPEG)


def _works(servers: list[str], single: Body, files: list[bytes], images: Any, model: str) -> list[Work]:
    works = [Work("one JPEG, 16 connections", server, "/predict", single, 16) for server in servers]
    works += [Work("one JPEG, one connection", server, "/predict", single, 1) for server in servers]
    raw = Body(images.tobytes(), BINARY)
    return [
        *works,
        Work("64 JPEGs", _OURS, "/predict/batch", form("images", files), 4),
        Work("64 images, raw", _OURS, "/predict/batch", raw, 4),
        Work("64 images, V2 binary", _OURS, f"/v2/models/{model}/infer", _v2_binary(images), 4),
    ]


def _v2_binary(images: Any) -> Body:
    tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape}
    text = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": images.nbytes}}]}).encode()
    return Body(text + images.tobytes(), BINARY, (f"{JSON_LENGTH}: {len(text)}",))


def _medians(loads: list[Load]) -> Figures:
    return {field: median(getattr(found, field) for found in loads) for field in Load._fields}


def _ceiling(version: Path, environment: Mapping[str, str], seconds: float) -> Figures:
    """Return what one process does without HTTP, while the servers are idle."""
    precision = Settings.from_environment(environment).precision
    command = [sys.executable, str(ROOT / "benchmarks" / "ceiling.py"), str(version)]
    arguments = ["--precision", precision, "--seconds", str(seconds)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def _phone(port: int, process: int, body: Body) -> Figures:
    """Return what a picture of 12 megapixels takes: median milliseconds, those of decoding, and megabytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    before = _decoding(port)
    seconds = times(lambda: post(connection, body), 20)
    decoding = [after - earlier for after, earlier in zip(_decoding(port), before, strict=True)]
    idle = memory(process)
    with _Highest(lambda: memory(process)) as peak:  # apart, since reading it holds the process up
        for _ in range(20):
            post(connection, body)
    connection.close()
    return {
        "milliseconds": median(seconds) * 1000,
        "decoding_milliseconds": decoding[0] / decoding[1] * 1000,
        "megabytes_above_idle": (peak.value - idle) / 1e6,
    }


def _decoding(port: int) -> tuple[float, float]:
    """Return the seconds of decoding so far, as the service counts them, and the pictures."""
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
    seconds, pictures = (
        re.search(rf"^darkroom_decode_seconds_{what}{{.*}} (\S+)$", text, re.MULTILINE) for what in ("sum", "count")
    )
    return float(seconds[1]) if seconds else 0.0, float(pictures[1]) if pictures else 0.0


class _Highest:
    """Watches a value for the time of a block."""

    def __init__(self, read: Callable[[], int]) -> None:
        self.value = 0
        self._read = read
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _Highest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.value = max(self.value, self._read())


def _overload(port: int, body: Body, seconds: float, folder: Path) -> Figures:
    """Return what is left of the peak while a crowd asks for several times as much, and what newcomers see meanwhile.

    Who is refused asks again at once. Pauses would be kinder, but the timers of wrk take a tenth of the cores.
    """
    url = f"http://127.0.0.1:{port}/predict"
    peak = max(load(url, body, connections, _PEAK_SECONDS, folder).rate for connections in (16, 64))
    probe = _Probe(port, body)
    with probe:
        found = load(url, body, _CROWD, seconds, folder)
    return {
        "connections": _CROWD,
        "peak": peak,
        "rate": found.rate,
        "refused": found.refused,
        "unanswered": found.errors,
        "of_peak": found.rate / peak,
        "asked_of_peak": (found.rate + found.refused) / peak,
        "newcomer_milliseconds": probe.told(http.HTTPStatus.OK),
        "refused_newcomer_milliseconds": probe.told(http.HTTPStatus.SERVICE_UNAVAILABLE),
    }


class _Probe:
    """A client that asks now and then while others overload the service."""

    def __init__(self, port: int, body: Body) -> None:
        self._seconds: dict[int, list[float]] = {}
        self._port, self._body = port, body
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def told(self, status: int) -> Figures | None:
        """Return how many answers had ``status``, and the median and the p99 of their times in milliseconds."""
        seconds = self._seconds.get(status, [])
        if len(seconds) < 2:
            return None
        return {"count": len(seconds), "median": median(seconds) * 1000, "p99": quantiles(seconds, n=100)[98] * 1000}

    def _ask(self) -> None:
        while not self._stop.wait(_PROBE_PAUSE):
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            started = time.perf_counter()
            status = post(connection, self._body)
            self._seconds.setdefault(status, []).append(time.perf_counter() - started)
            connection.close()


def _table(figures: Figures) -> str:
    rows = [*_against_rivals(figures["loads"]), *_against_ceilings(figures), *_on_its_own(figures)]
    return "\n".join(("| work | measured | against |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)))


def _against_rivals(loads: Mapping[str, Figures]) -> Iterator[tuple[str, str, str]]:
    for connections in ("16 connections", "one connection"):
        ours = loads[f"{_OURS}: one JPEG, {connections}"]
        for server in (_OURS, *_RIVALS):
            theirs = loads[f"{server}: one JPEG, {connections}"]
            ratio = "" if server == _OURS else f"{_OURS} answers {ours['rate'] / theirs['rate']:.1f} times as many"
            told = f"{theirs['rate']:.0f}/s, median {theirs['median']:.1f} ms, p99 {theirs['p99']:.1f} ms"
            yield f"one JPEG, {connections}: {server}", told, ratio


def _against_ceilings(figures: Figures) -> Iterator[tuple[str, str, str]]:
    ceiling = figures["ceiling"]
    for name, against, what in (
        ("64 JPEGs", "decode_and_engine_images", "decoding and engine"),
        ("64 images, raw", "engine_images", "the engine"),
        ("64 images, V2 binary", "engine_images", "the engine"),
    ):
        images = figures["loads"][f"{_OURS}: {name}"]["rate"] * _BATCH
        share = f"{images / ceiling[against]:.0%} of {what} without HTTP, {ceiling[against]:.0f} images/s"
        yield f"{name} a request", f"{images:.0f} images/s", share
    lone, engine = figures["loads"][f"{_OURS}: one JPEG, one connection"]["median"], ceiling["engine_milliseconds"]
    yield "one client, one JPEG", f"{lone:.2f} ms", f"the engine's {engine:.2f} ms + {lone - engine:.2f} ms"


def _on_its_own(figures: Figures) -> Iterator[tuple[str, str, str]]:
    phone, overload = figures["phone"], figures["overload"]
    told = f"{phone['milliseconds']:.0f} ms, {phone['decoding_milliseconds']:.0f} ms of it decoding and scaling"
    yield "12-megapixel JPEG", told, f"{phone['megabytes_above_idle']:.0f} MB above idle"
    yield "process start to first answer", f"{figures['start_seconds']:.2f} s", ""
    yield "memory after all this", f"{figures['memory_megabytes']:.0f} MB", ""
    told = f"{overload['rate']:.0f}/s answered, {overload['refused']:.0f}/s refused"
    left = f"{overload['of_peak']:.0%} of the peak of {overload['peak']:.0f}/s"
    yield f"overload, {overload['asked_of_peak']:.1f} times what it can carry", told, left
    for what, key in (("answered", "newcomer_milliseconds"), ("refused", "refused_newcomer_milliseconds")):
        if seen := overload[key]:
            yield f"meanwhile a newcomer, {what}", f"median {seen['median']:.0f} ms, p99 {seen['p99']:.0f} ms", ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
