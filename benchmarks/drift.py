"""Whether the alarm on drift is right about photographs: windows of the same kind, of another camera, of other things.

``python benchmarks/drift.py VERSION FOLDER [--others FOLDER]`` has the service's own parts classify pictures of FOLDER,
which should be of the kind that the version was trained on and none that it learned from, and compare what they answer
as a running service does. Each picture is answered once; a window is the answers to 500, drawn anew each time. It
prints a Markdown table: the figures of 20 windows of the same kind, of one of each other kind, and how many of those it
takes until the alarm would fire.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageFilter, ImageOps
from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from artifact.pictures import has_suffix, is_visible
from service.app import make_services
from service.inference.engine import Outputs
from service.inference.items import Item
from service.observe.metrics import Metrics
from service.observe.window import Drift
from service.settings import Settings

_WINDOW = 500
_PART = 50  # pictures of a request
_DEADLINE = 600.0  # seconds
_RULES = Path(__file__).resolve().parent.parent / "docker" / "prometheus" / "alerts.rules.yml"

Change = Callable[[Image.Image], Image.Image]


def _darker(image: Image.Image) -> Image.Image:
    return image.point(lambda value: int(0.6 * value))


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(min(image.size) / 100))


CAMERAS: dict[str, Change] = {
    "darker and blurred": lambda image: _darker(_blurred(image)),
    "darker": _darker,
    "blurred": _blurred,
    "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
}


class Service:
    """The parts of a service that classify with one version and compare its last answers."""

    def __init__(self, version: Path) -> None:
        settings = Settings(
            model_dir=version.parents[1], model_name=version.parent.name, model_version=int(version.name)
        )
        self._metrics = Metrics(CollectorRegistry(), window=_WINDOW)
        self._services = make_services(settings, self._metrics, draining=lambda: False)
        self._services.models.refresh()

    def answers(self, pictures: Sequence[bytes]) -> Outputs:
        """Return what the engine answers to ``pictures``, float32 [N, columns]."""
        parts = []
        with self._services.registry.use() as model:
            for begin in range(0, len(pictures), _PART):
                items = [Item(content) for content in pictures[begin : begin + _PART]]
                found = self._services.predictor.predict_all(
                    model, items, time.monotonic() + _DEADLINE, embedding=model.engine.embedding > 0
                )
                columns = [found.probabilities]
                columns += [] if found.familiarity is None else [found.familiarity[:, np.newaxis]]
                columns += [] if found.embedding is None else [found.embedding]
                parts.append(np.hstack(columns))
        return np.concatenate(parts)

    def after(self, *windows: Outputs) -> list[tuple[int, Drift | None]]:
        """Begin anew, and have ``windows`` of answers given; return after each part of the last what is told of drift.

        With each goes how many answers of the last window had been given by then.
        """
        with self._services.registry.use() as model:
            observer = self._metrics.of_engine(
                model.name, model.version, model.metadata, model.path, model.engine.embedding
            )
            for outputs in windows[:-1]:
                observer.classified(outputs)
            told = []
            for begin in range(0, len(windows[-1]), _PART):
                observer.classified(windows[-1][begin : begin + _PART])
                told.append((begin + _PART, self._metrics.drift(model.name, model.version)))
            return told

    def close(self) -> None:
        """End its threads."""
        self._services.models.close()


def alarm() -> Callable[[Drift], bool]:
    """Return what says whether the rule that Prometheus has would fire, with the limits that are written there."""
    groups = yaml.safe_load(_RULES.read_text(encoding="utf-8"))["groups"]
    [expr] = [rule["expr"] for group in groups for rule in group["rules"] if rule.get("alert") == "AnswersDrifted"]
    index, p_value, distance = map(float, re.findall(r"[<>] ([\d.]+)", expr))

    def fires(drift: Drift) -> bool:
        moved = any(s.population_stability_index > index and s.p_value < p_value for s in drift.shifts.values())
        return moved or (drift.embedding is not None and drift.embedding > distance)

    return fires


def pictures_in(folder: Path) -> list[bytes]:
    """Return the content of all pictures below ``folder``."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and is_visible(path.name))
    return [path.read_bytes() for path in files if has_suffix(path.name)]


def taken_by(change: Change, content: bytes) -> bytes:
    """Return a picture as another camera would have taken it."""
    buffer = io.BytesIO()
    change(Image.open(io.BytesIO(content)).convert("RGB")).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def drawn(answers: Outputs, rng: np.random.Generator) -> Outputs:
    """Return a window of ``answers`` at random, none twice before each was there once."""
    order = np.concatenate([rng.permutation(len(answers)) for _ in range(-(-_WINDOW // len(answers)))])
    window: Outputs = answers[order[:_WINDOW]]
    return window


def _row(kind: str, told: Sequence[Drift], until: str) -> str:
    """Return a row of the table: of several windows the largest index, the least p-value and the largest distance."""
    cells = []
    for name in ("labels", "confidence", "familiarity"):
        shifts = [drift.shifts[name] for drift in told if name in drift.shifts]
        indices = max((shift.population_stability_index for shift in shifts), default=float("nan"))
        cells.append(f"{indices:.2f} ({min((shift.p_value for shift in shifts), default=float('nan')):.1g})")
    distances = [drift.embedding for drift in told if drift.embedding is not None]
    cells.append(f"{max(distances):.2f}" if distances else "")
    return f"| {kind} | {' | '.join(cells)} | {until} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("version", type=Path, help="folder of a version that has a reference")
    parser.add_argument("like", type=Path, metavar="FOLDER", help="pictures of the kind that it was trained on")
    parser.add_argument("--others", type=Path, metavar="FOLDER", help="pictures of other things")
    parser.add_argument("--windows", type=int, default=20, help="of the same kind (default: %(default)s)")
    options = parser.parse_args()
    rng, fires = np.random.default_rng(0), alarm()
    like = pictures_in(options.like)
    service = Service(options.version.resolve())
    try:
        usual = service.answers(like)
        told = [drift for _ in range(options.windows) if (drift := service.after(drawn(usual, rng))[-1][1])]
        if not told:
            sys.exit(f"error: {options.version} has no reference; versions of an earlier release have none")
        print("| pictures | labels | confidence | familiarity | embedding | alarm |\n|---|---|---|---|---|---|")
        alarms = sum(map(fires, told))
        print(_row(f"the same kind, {len(told)} windows", told, f"in {alarms} of {len(told)}"), flush=True)
        for name, change in CAMERAS.items():
            others = service.answers([taken_by(change, content) for content in like])
            print(_after_change(service, usual, others, name, fires, rng), flush=True)
        if options.others:
            others = service.answers(pictures_in(options.others))
            print(_after_change(service, usual, others, "other things", fires, rng), flush=True)
    finally:
        service.close()


def _after_change(
    service: Service,
    usual: Outputs,
    others: Outputs,
    name: str,
    fires: Callable[[Drift], bool],
    rng: np.random.Generator,
) -> str:
    """Return the row of the table on ``others`` that come after a window of the ``usual``."""
    told = [
        (count, drift) for count, drift in service.after(drawn(usual, rng), drawn(others, rng)) if drift is not None
    ]
    first = next((count for count, drift in told if fires(drift)), None)
    return _row(name, [told[-1][1]], "none" if first is None else f"after {first}")


if __name__ == "__main__":
    main()
