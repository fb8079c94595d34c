"""What many models cost: how long a start takes, how much memory, and what one that is busy takes from another.

    python benchmarks/many_models.py                       about two minutes
    python benchmarks/many_models.py --heavy models/flowers/2

The light model is the bundled one; the heavy one is EfficientNet-Lite0 in int8, which is made where none is named.
Needs wrk.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, the folder of the packages is not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.measuring import (  # noqa: E402
    JPEG,
    Body,
    Load,
    drawings,
    free_port,
    jpeg,
    load,
    memory,
    photograph,
    require_wrk,
    running,
)
from benchmarks.photographs import own_version  # noqa: E402

_LIGHT = ROOT / "models" / "cifar10" / "5"
_COUNTS = (1, 2, 10)
_LIGHT_CONNECTIONS, _HEAVY_CONNECTIONS = 4, 32
_PATIENCE = 120.0  # seconds for a start


def main(arguments: list[str]) -> int:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heavy", type=Path, help="folder of an int8 version for photographs")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default: 5)")
    options = parser.parse_args(arguments)
    require_wrk()
    heavy = options.heavy.resolve() if options.heavy else own_version(ROOT / "runs")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| models | ready after | memory of the processes |\n|---|---|---|")
        for version, called in ((_LIGHT, "32x32"), (heavy, "photographs")):
            for count in _COUNTS:
                seconds, size = _started(folder, version, count)
                print(f"| {count}, {called} | {seconds:.2f} s | {size / 1e6:,.0f} MB |", flush=True)
        _print_fairness(folder, heavy, options.seconds)
    return 0


def _started(folder: Path, version: Path, count: int) -> tuple[float, int]:
    """Return how many seconds a start takes with ``count`` copies of a version, and the bytes of memory after it."""
    models = _models(folder / f"{version.parent.name}-{count}", {f"model{number}": version for number in range(count)})
    started = time.perf_counter()
    with _serving(models) as (process, _):
        return time.perf_counter() - started, memory(process)


def _print_fairness(folder: Path, heavy: Path, seconds: float) -> None:
    models = _models(folder / "fairness", {"light": _LIGHT, "heavy": heavy})
    small, large = Body(jpeg(drawings(32, 32)[0]), JPEG), Body(jpeg(photograph(375, 500)), JPEG)
    with _serving(models) as (_, port):

        def ask(name: str, body: Body, connections: int) -> Load:
            place = folder / f"load-{name}"
            place.mkdir(exist_ok=True)
            return load(f"http://127.0.0.1:{port}/predict?model={name}", body, connections, seconds, place)

        ask("light", small, _LIGHT_CONNECTIONS)
        ask("heavy", large, _LIGHT_CONNECTIONS)
        print("\n| the light model | answers | half of them within | 99% within |\n|---|---|---|---|")
        alone = ask("light", small, _LIGHT_CONNECTIONS)
        _print("alone", alone)
        heavy_alone = ask("heavy", large, _HEAVY_CONNECTIONS)
        found: dict[str, Load] = {}
        busy = threading.Thread(target=lambda: found.update(heavy=ask("heavy", large, _HEAVY_CONNECTIONS)))
        busy.start()
        beside = ask("light", small, _LIGHT_CONNECTIONS)
        busy.join()
        _print(f"beside the heavy one with {_HEAVY_CONNECTIONS} clients", beside)
        kept, left = beside.rate / alone.rate, found["heavy"].rate / heavy_alone.rate
        print(f"\nThe light model keeps {kept:.0%} of its rate, the heavy one {left:.0%} of {heavy_alone.rate:,.0f}/s.")


def _print(what: str, found: Load) -> None:
    print(f"| {what} | {found.rate:,.0f}/s | {found.median:.1f} ms | {found.p99:.1f} ms |", flush=True)


def _models(folder: Path, versions: dict[str, Path]) -> Path:
    """Return a folder of models with these versions, by links to their folders."""
    for name, version in versions.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "1").symlink_to(version, target_is_directory=True)
    return folder


@contextmanager
def _serving(models: Path) -> Iterator[tuple[int, int]]:
    """Serve ``models`` for the time of the block, which begins once all are loaded; give the process and the port."""
    port = free_port()
    own = {"MODEL_DIR": str(models), "MODEL_NAME": max(models.iterdir()).name, "HOST": "127.0.0.1"}
    command = (sys.executable, "-m", "service")
    with running(command, {**own, "PORT": str(port), "WORKERS": "1", "LOG_LEVEL": "warning"}) as process:
        deadline = time.monotonic() + _PATIENCE
        while not _all_ready(port):
            if time.monotonic() > deadline or process.poll() is not None:
                sys.exit("error: the service does not become ready")
            time.sleep(0.01)
        yield process.pid, port


def _all_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/models") as answer:
            models = json.load(answer)["models"]
    except (urllib.error.URLError, OSError):
        return False
    return all(model["state"] == "ready" for model in models)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
