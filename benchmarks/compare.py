"""Compare the service with other servers, and with what the processor can do without HTTP.

    python benchmarks/compare.py                                   all tables, about a quarter of an hour
    python benchmarks/compare.py --only same-engine starlette      one table, one rival
    python benchmarks/compare.py --rounds 1 --seconds 1 --overload 5 --output compare.json

Tables:

    same-engine   servers around the service's own engine, int8 weights and decoder: what is compared is the serving
    photographs   the same with large pictures and a network of 224x224 pixels
    alone         the service against decoding and engine without HTTP, its start, memory, and an overload
    tensorflow    servers of the usual kind, which run the same network in TensorFlow and float32: another engine

Rivals: starlette, fastapi, bentoml, litserve, ray, flask-tensorflow, fastapi-tensorflow. benchmarks/rivals/ has the
code of each; MLServer is missing, since it asks for older versions than the others. A rival that does not start is
named under the table, and the others are measured.

All servers are up at once and asked in turn, in alternating order; those that poll while they are idle are frozen
(SIGSTOP) while others are asked. Ratios are the medians of the rounds' ratios. The load generator, wrk, shares the
cores with them. Settings of the service come from the environment, such as PRECISION=bfloat16. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, the folder of the packages is not on the path
    sys.path.insert(0, str(ROOT))

from artifact import latest, models_in, read_metadata, version_path  # noqa: E402
from benchmarks import alone, loads, photographs, tables  # noqa: E402
from benchmarks.loads import Figures, Rounds, Work  # noqa: E402
from benchmarks.measuring import (  # noqa: E402
    Body,
    ServerFailed,
    drawings,
    form,
    jpeg,
    memory,
    photograph,
    processor,
    require_wrk,
)
from benchmarks.servers import FORM, Running, Server, darkroom, same_engine, started, tensorflow  # noqa: E402
from machine import usable_cores  # noqa: E402
from service.inference.engine import Images  # noqa: E402
from service.inference.folders import default_model  # noqa: E402
from service.settings import Settings  # noqa: E402

_TABLES = ("same-engine", "photographs", "alone", "tensorflow")
_RIVALS = ("starlette", "fastapi", "bentoml", "litserve", "ray", "flask-tensorflow", "fastapi-tensorflow")
_OF_PHOTOGRAPHS = ("starlette", "fastapi")


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Measure, print the tables, and write the figures as JSON where ``--output`` asks for it."""
    options = _parser().parse_args(arguments)
    require_wrk()
    _allow_many_files()
    settings = Settings.from_environment(environment)
    figures = _conditions(settings)
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(options, settings, environment, Path(folder))
        try:
            if {"same-engine", "alone", "tensorflow"} & run.tables:
                figures["small"] = run.small(_version(settings))
            if "photographs" in run.tables:
                figures["photographs"] = run.photographs()
        except ServerFailed as error:
            sys.exit(f"error: Darkroom does not answer: {error}")
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(tables.markdown(figures))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=3, help="times that everything is measured (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load (default: %(default)s)")
    parser.add_argument(
        "--overload", type=float, default=60.0, metavar="SECONDS", help="of the overload (default: %(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=(*_TABLES, *_RIVALS), default=[], metavar="NAME", help="these tables and rivals"
    )
    parser.add_argument(
        "--photographs",
        type=Path,
        metavar="VERSION",
        help="int8 version for the photographs (default: an EfficientNet-Lite0, made once under runs/)",
    )
    parser.add_argument("--output", type=Path, help="write the figures to this file as JSON")
    return parser


def _allow_many_files() -> None:
    """Let the load generator have as many connections as the overload needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(2 * alone.CROWD, hard)), hard))


def _version(settings: Settings) -> Path:
    name = settings.model_name or default_model(settings.model_dir, models_in(settings.model_dir))
    version = settings.model_version or (latest(settings.model_dir, name) if name else None)
    if name is None or version is None:
        sys.exit(f"error: there is no model version in {settings.model_dir}; set MODEL_DIR")
    return version_path(settings.model_dir, name, version).resolve()


def _conditions(settings: Settings) -> Figures:
    return {
        "precision": settings.precision,
        "workers": settings.workers,
        "cores": usable_cores(),
        "processor": processor(),
        "python": platform.python_version(),
    }


class _Run:
    """What was asked for, and the measurements of it."""

    def __init__(
        self, options: argparse.Namespace, settings: Settings, environment: Mapping[str, str], folder: Path
    ) -> None:
        self.tables = frozenset(options.only).intersection(_TABLES) or frozenset(_TABLES)
        self._rivals = frozenset(options.only).intersection(_RIVALS) or frozenset(_RIVALS)
        self._options = options
        self._precision = settings.precision
        self._environment = environment
        self._folder = folder

    def small(self, version: Path) -> Figures:
        """Return the figures of small pictures, with the model version in folder ``version``."""
        size = read_metadata(version).input
        pictures = drawings(size.height, size.width)
        images = np.stack([pictures[index % len(pictures)] for index in range(loads.BATCH_SIZE)])
        single = form("image", [jpeg(images[0])])
        rivals = self._chosen(same_engine(version, self._precision)) if "same-engine" in self.tables else []
        others = self._chosen(tensorflow(version)) if "tensorflow" in self.tables else []
        figures: Figures = {"model": f"{version.parent.name}/{version.name}"}
        with ExitStack() as stack:
            rounds = Rounds(self._folder)
            running = self._start(stack, [darkroom(self._environment, version), *rivals, *others], single, rounds)
            works = self._small_works(images, version.parent.name)
            figures |= self._measure(rounds, works, running, version, [] if "alone" in self.tables else None)
            figures["same_engine"] = [server.name for server in rivals]
            figures["tensorflow"] = [server.name for server in others]
            if "alone" in self.tables:
                figures |= self._alone(running[0], single)
        return figures

    def photographs(self) -> Figures:
        """Return the figures of photographs."""
        named = self._options.photographs
        version = photographs.int8_version(named) if named else photographs.own_version(ROOT / "runs")
        servers = same_engine(version, self._precision)
        rivals = self._chosen({name: servers[name] for name in _OF_PHOTOGRAPHS})
        body = form("image", [jpeg(photograph(*next(iter(loads.PHOTOGRAPHS.values()))))])
        figures: Figures = {"model": f"{version.parent.name}/{version.name}"}
        with ExitStack() as stack:
            rounds = Rounds(self._folder)
            running = self._start(stack, [darkroom(self._environment, version), *rivals], body, rounds)
            sizes = ["x".join(map(str, size)) for size in loads.PHOTOGRAPHS.values()]
            works = loads.photograph_works()
            figures |= self._measure(rounds, works, running, version, ["--photographs", *sizes])
            figures["same_engine"] = [server.name for server in rivals]
            figures["start_seconds"] = running[0].start_seconds
            figures["memory_megabytes"] = memory(running[0].process.pid) / 1e6
        return figures

    def _chosen(self, servers: Mapping[str, Server]) -> list[Server]:
        return [server for name, server in servers.items() if name in self._rivals]

    def _start(self, stack: ExitStack, servers: Sequence[Server], body: Body, rounds: Rounds) -> list[Running]:
        """Start ``servers``, of which the first has to answer; of the others, ``rounds`` are told which do not."""
        running = [stack.enter_context(started(servers[0], body, self._folder))]
        for server in servers[1:]:
            try:
                running.append(stack.enter_context(started(server, body, self._folder)))
            except ServerFailed as error:
                rounds.failed[server.name] = str(error)
        return running

    def _small_works(self, images: Images, model: str) -> list[Work]:
        works: list[Work] = []
        if {"same-engine", "tensorflow"} & self.tables:
            works += loads.single_works(images)
        if "same-engine" not in self.tables:
            works = [work for work in works if work.takes == FORM]  # which TensorFlow's servers take
        if {"same-engine", "alone"} & self.tables:
            works.append(loads.batch_work(images))
        if "alone" in self.tables:
            works += loads.tensor_works(images, model)
        return works

    def _measure(
        self,
        rounds: Rounds,
        works: Sequence[Work],
        running: Sequence[Running],
        version: Path,
        ceiling: Iterable[str] | None,
    ) -> Figures:
        """Return what came of the loads, and with the options ``ceiling`` what one process does without HTTP."""
        ceilings = []
        for number in range(self._options.rounds):
            rounds.run(works, running, self._options.seconds, number)
            if ceiling is not None:
                ceilings.append(self._ceiling(version, ceiling))
        if running[0].server.name in rounds.failed:
            raise ServerFailed(rounds.failed[running[0].server.name])
        return {"loads": rounds.figures(), "failed": rounds.failed, "ceiling": _medians(ceilings)}

    def _ceiling(self, version: Path, options: Iterable[str]) -> Figures:
        """Return what one process does without HTTP, while the servers are idle."""
        command = [sys.executable, str(ROOT / "benchmarks" / "ceiling.py"), str(version), *options]
        arguments = ["--precision", self._precision, "--seconds", str(self._options.seconds)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
        figures: Figures = json.loads(done.stdout)
        return figures

    def _alone(self, ours: Running, body: Body) -> Figures:
        return {
            "start_seconds": ours.start_seconds,
            "phone": alone.phone(ours.port, ours.process.pid),
            "overload": alone.overload(ours.port, body, self._options.overload, self._folder),
            "memory_megabytes": memory(ours.process.pid) / 1e6,
        }


def _medians(found: Sequence[Figures]) -> Figures:
    """Return the medians of figures that may hold others."""
    return {
        name: _medians([one[name] for one in found]) if isinstance(value, dict) else median(one[name] for one in found)
        for name, value in (found[0] if found else {}).items()
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
