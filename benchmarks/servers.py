"""The servers that compare.py measures: how each is started, and what it takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.measuring import ROOT, Body, ServerFailed, first_answer, free_port, freeze, running, thaw
from machine import usable_cores

OURS = "Darkroom"
RAW, FORM, BATCH = "raw", "multipart", "batch"  # how pictures come: as the body, in a form, several in a form

_RIVALS_PYTHON = ROOT / ".venv-rivals" / "bin" / "python"
_UVICORN = ("-m", "uvicorn", "--log-level=error", "--no-access-log", "--port={port}")
_BENTOML = ("-m", "bentoml", "serve", "--host=127.0.0.1", "--port={port}")


class Server(NamedTuple):
    """How one server is started, with ``{port}`` for its port, and what it takes.

    One that ``polls`` is frozen while others are asked, since it would take their cores.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    takes: frozenset[str]
    polls: bool = False


class Running(NamedTuple):
    """A server that answers, and the seconds that it took to its first answer."""

    server: Server
    port: int
    process: subprocess.Popen[bytes]
    start_seconds: float


def darkroom(environment: Mapping[str, str], version: Path) -> Server:
    """Return our service with the model version in folder ``version``, and with the settings of ``environment``."""
    models = {"MODEL_DIR": str(version.parents[1]), "MODEL_NAME": version.parent.name, "MODEL_VERSION": version.name}
    own = {"HOST": "127.0.0.1", "PORT": "{port}", "DRAIN_SECONDS": "0", "LOG_LEVEL": "warning"}
    command = (sys.executable, "-m", "service")
    return Server(OURS, command, {**environment, **models, **own}, frozenset({RAW, FORM, BATCH}))


def same_engine(version: Path, precision: str) -> dict[str, Server]:
    """Return the servers around our engine and decoder by their short names, which serve the version in a folder."""
    own = {"MODEL": str(version), "PRECISION": precision}
    by_hand, framework = sys.executable, str(_RIVALS_PYTHON)
    processes = f"--workers={usable_cores()}"
    return {
        "starlette": Server(
            "Starlette, batching",
            (by_hand, *_UVICORN, "--factory", "benchmarks.rivals.batching:create_app"),
            own,
            frozenset({RAW, FORM, BATCH}),
        ),
        "fastapi": Server(
            "FastAPI, a process a core",
            (by_hand, *_UVICORN, "--factory", processes, "benchmarks.rivals.per_core:create_app"),
            own,
            frozenset({FORM, BATCH}),
        ),
        "bentoml": Server(
            "BentoML",
            (framework, *_BENTOML, "benchmarks.rivals.bento:Classifier"),
            {**own, "BENTOML_DO_NOT_TRACK": "True"},
            frozenset({FORM}),
        ),
        "litserve": Server(
            "LitServe", (framework, "-m", "benchmarks.rivals.lit", "{port}"), own, frozenset({FORM}), polls=True
        ),
        "ray": Server(
            "Ray Serve",
            (framework, "-m", "benchmarks.rivals.ray_serve", "{port}"),
            {**own, "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
            frozenset({RAW, FORM}),
            polls=True,
        ),
    }


def tensorflow(version: Path) -> dict[str, Server]:
    """Return the servers of the usual kind by their short names, around the version's SavedModel in TensorFlow."""
    own = {"MODEL": str(version), "TF_CPP_MIN_LOG_LEVEL": "3"}
    gunicorn = (sys.executable, "-m", "gunicorn", "--log-level=error", "--bind=127.0.0.1:{port}")
    return {
        "flask-tensorflow": Server(
            "Flask, gunicorn sync, TensorFlow", (*gunicorn, "benchmarks.rivals.tutorial:app"), own, frozenset({FORM})
        ),
        "fastapi-tensorflow": Server(
            "FastAPI, uvicorn, TensorFlow",
            (sys.executable, *_UVICORN, "benchmarks.rivals.fast:app"),
            own,
            frozenset({FORM}),
        ),
    }


@contextmanager
def started(server: Server, body: Body, folder: Path) -> Iterator[Running]:
    """Run ``server`` for the time of the block, which begins with its first answer; it prints into ``folder``.

    Raises:
        ServerFailed: it does not start; the message is the last line that it printed.
    """
    port = free_port()
    log = folder / f"{server.name}.log"
    command = [word.replace("{port}", str(port)) for word in server.command]
    if not Path(command[0]).exists():
        raise ServerFailed(f"{Path(command[0]).relative_to(ROOT)} is missing; make .venv-rivals/stamp installs it")
    environment = {name: value.replace("{port}", str(port)) for name, value in server.environment.items()}
    with running(command, environment, log) as process:
        try:
            seconds = first_answer(port, body, process)
        except ServerFailed as error:
            printed = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ServerFailed(f"{error}: {printed[-1] if printed else 'it printed nothing'}") from error
        running_server = Running(server, port, process, seconds)
        rest(running_server)
        try:
            yield running_server
        finally:
            wake(running_server)


def rest(running_server: Running) -> None:
    """Freeze a server that polls, until it is asked again."""
    if running_server.server.polls:
        freeze(running_server.process.pid)


def wake(running_server: Running) -> None:
    """Let a server that polls go on."""
    if running_server.server.polls:
        thaw(running_server.process.pid)
