"""Measure what the accuracy of model versions costs: images a second on the serving engine, as a table and a plot.

Accuracies are read from the versions' metadata; rounds alternate between the versions and the medians count, so that a
noisy machine harms all alike. Each version runs in the precision that the service would choose.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import artifact
from artifact import Metadata
from machine import usable_cores
from service.inference.engine import Engine, load

_BATCH = 32  # images a call
_CALLS = 20  # of a batch each, in a round


@dataclass(frozen=True)
class Point:
    """One version's place on the curve."""

    version: str
    metadata: Metadata
    precision: str
    images_per_second: float


def main() -> int:
    """Measure the versions that the command line names, print the table and write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", type=Path, metavar="VERSION", help="folder, e.g. models/cifar10/5")
    parser.add_argument("--rounds", type=int, default=7, help="rounds over all versions (default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="as the service's PRECISION (default: %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the curve there (.svg, .png)")
    options = parser.parse_args()
    points = measure(options.versions, options.rounds, options.precision)
    print(table(points))
    if options.plot:
        draw(points, options.plot)
    return 0


def measure(versions: Sequence[Path], rounds: int, precision: str) -> list[Point]:
    """Return a point for each version, the fastest first."""
    metadata = [artifact.validate(version) for version in versions]
    engines = [load("openvino", version, precision, usable_cores()) for version in versions]
    rng = np.random.default_rng(0)
    batches = [rng.integers(256, size=(_BATCH, m.input.height, m.input.width, 3), dtype=np.uint8) for m in metadata]
    rates: list[list[float]] = [[] for _ in versions]
    for _ in tqdm(range(rounds), unit="round", disable=not sys.stderr.isatty()):
        for engine, batch, found in zip(engines, batches, rates, strict=True):
            found.append(_rate(engine, batch))
    points = [
        Point(f"{m.name}/{m.version}", m, engine.precision, median(found))
        for m, engine, found in zip(metadata, engines, rates, strict=True)
    ]
    return sorted(points, key=lambda point: -point.images_per_second)


def _rate(engine: Engine, batch: np.ndarray) -> float:
    engine.predict(batch)
    started = time.perf_counter()
    for _ in range(_CALLS):
        engine.predict(batch)
    return _CALLS * len(batch) / (time.perf_counter() - started)


def table(points: Sequence[Point]) -> str:
    """Return the points as a table in Markdown."""
    rows = [
        "| version | preset | MFLOP | parameters | precision | images/s | accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    for point in points:
        m = point.metadata
        rows.append(
            f"| {point.version} | {m.training.get('preset', '')} | {m.megaflops:,.0f} | {m.parameters / 1e6:.1f} M "
            f"| {point.precision} | {point.images_per_second:,.0f} | {m.metrics.accuracy:.2%} |"
        )
    return "\n".join(rows)


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw accuracy in percent against images a second, and write the picture to ``path``."""
    with mpl.rc_context({"svg.hashsalt": "curve"}):  # the same figures give the same file
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        rates = [point.images_per_second for point in points]
        accuracies = [100 * point.metadata.metrics.accuracy for point in points]
        axes.plot(rates, accuracies, "o-")
        for point, rate, accuracy in zip(points, rates, accuracies, strict=True):
            name = point.metadata.training.get("preset", point.version)
            axes.annotate(f"{name}, {point.precision}", (rate, accuracy), (6, 6), textcoords="offset points")
        axes.margins(x=0.2, y=0.2)
        axes.set_xlabel(f"images/s, batches of {_BATCH}")
        axes.set_ylabel("accuracy on the test images, %")
        axes.grid(alpha=0.3)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    sys.exit(main())
