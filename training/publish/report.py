"""The report that a version carries, and what it takes to write one again for any other pictures."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact import Calibration, Metadata
from artifact.accuracy import accuracy_in_words
from artifact.layout import EXTRA, INT8_MODEL, INT8_WEIGHTS, REPORT
from training.data.dataset import Dataset
from training.data.findings import Finding
from training.evaluation.calibration import Correction
from training.evaluation.multi_label import MultiLabelEvaluation
from training.evaluation.tasks import AnyEvaluation
from training.evaluation.timing import milliseconds_of, processor
from training.publish import configuration
from training.publish.model_card import (
    calibration_in_words,
    data_in_words,
    familiarity_in_words,
    int8_accuracy,
    trained_in_words,
)
from training.report.contents import Contents, Cost
from training.report.label_page import label_comparison_page, label_page
from training.report.page import comparison_page, report_page

History = Sequence[Mapping[str, float]]

HISTORY = f"{EXTRA}/history.json"
"""Losses and accuracies of the training, a record for each epoch; a version that was not trained so has none."""

_TIMED_SECONDS = 0.25


@dataclass(frozen=True)
class Shown:
    """What a report shows beside the figures: the data that was read, what was found in it, and whether pictures.

    ``warnings`` say what the figures leave out. ``configuration`` is the file that repeats the training, as a reader of
    the page would name it.
    """

    dataset: Dataset
    pictures: bool = True
    findings: Sequence[Finding] = ()
    warnings: Sequence[str] = ()
    configuration: Path = Path(configuration.FILE)  # beside the page


def write_report(
    version: Path, metadata: Metadata, evaluation: AnyEvaluation, shown: Shown, uncalibrated: NDArray[np.float32] | None
) -> None:
    """Write the report of the version that is made in folder ``version``, where everything else lies already.

    Raises:
        OSError: the folder cannot be written.
    """
    contents = gather(version, metadata, metadata.name, evaluation, shown, uncalibrated)
    (version / REPORT).write_text(page_of(contents), encoding="utf-8")


def page_of(contents: Contents) -> str:
    """Return the page on one version, whichever its task is."""
    evaluation = contents.evaluation
    return label_page(contents, evaluation) if isinstance(evaluation, MultiLabelEvaluation) else report_page(contents)


def comparison_of(title: str, before: Contents, after: Contents) -> str:
    """Return the page on two versions of the same task, with the same pictures and labels."""
    a, b = before.evaluation, after.evaluation
    if isinstance(a, MultiLabelEvaluation) and isinstance(b, MultiLabelEvaluation):
        return label_comparison_page(title, (before, after), (a, b))
    return comparison_page(title, before, after)


def gather(
    version: Path,
    metadata: Metadata,
    title: str,
    evaluation: AnyEvaluation,
    shown: Shown,
    uncalibrated: NDArray[np.float32] | None,
) -> Contents:
    """Return what a report shows of the version in folder ``version``, which is timed for it."""
    repeatable = (version / EXTRA / configuration.FILE).exists()
    return Contents(
        title=title,
        evaluation=evaluation,
        uncalibrated=uncalibrated,
        history=_history(version),
        costs=_costs(version, metadata, evaluation),
        timed_on=processor(),
        facts=_facts(metadata),
        command=f"darkroom train --config {shlex.quote(str(shown.configuration))}" if repeatable else None,
        left_out=shown.dataset.left_out,
        passed_over=shown.dataset.passed_over,
        findings=(*shown.dataset.findings, *shown.findings),
        warnings=tuple(shown.warnings),
        pictures=shown.pictures,
    )


def before_calibration(evaluation: AnyEvaluation, calibration: Calibration | None) -> NDArray[np.float32] | None:
    """Return the probabilities float32 [N, classes] before a temperature; None where it was not that alone.

    Softmax with a temperature leaves the logits as they were, but for what is the same for all classes; of undone label
    smoothing there is no such way back, and of several labels none is shown.
    """
    if isinstance(evaluation, MultiLabelEvaluation):
        return None
    if calibration is None or calibration.label_smoothing:
        return None
    logarithms = np.log(np.maximum(evaluation.probabilities, np.finfo(np.float32).tiny))
    return Correction().probabilities(np.float32(calibration.temperature) * logarithms)


def write_history(version: Path, history: History) -> None:
    """Keep the learning curves in the version that is made in folder ``version``, where there are any."""
    if history:
        (version / HISTORY).write_text(json.dumps(history) + "\n", encoding="utf-8")


def shows_pictures(version: Path) -> bool:
    """Say whether the report of the version in folder ``version`` has pictures; one without a report may have any."""
    try:
        return "<img " in (version / REPORT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return True


def _history(version: Path) -> History:
    try:
        history: History = json.loads((version / HISTORY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return history


def _costs(version: Path, metadata: Metadata, evaluation: AnyEvaluation) -> tuple[Cost, ...]:
    picture = evaluation.split.images[:1]
    metrics = evaluation.metrics()
    right = accuracy_in_words(metrics.accuracy, metrics.images, metrics.measured_on)
    files = [version / "saved_model.pb", *(version / "variables").glob("*")]
    float32 = milliseconds_of(version, picture, "float32", _TIMED_SECONDS)
    costs = [Cost("float32", _megabytes(files), float32, right)]
    if metadata.int8:
        network, weights = version / INT8_MODEL, version / INT8_WEIGHTS
        int8 = milliseconds_of(network, picture, "int8", _TIMED_SECONDS)
        costs.append(Cost("int8", _megabytes([network, weights]), int8, int8_accuracy(metadata.int8)))
    return tuple(costs)


def _megabytes(files: Sequence[Path]) -> float:
    return sum(file.stat().st_size for file in files) / 1e6


def _facts(metadata: Metadata) -> tuple[tuple[str, str], ...]:
    size = metadata.input
    facts = {
        "created": f"{metadata.created}, {trained_in_words(metadata)}",
        "code": f"revision {metadata.revision}",
        "data": data_in_words(metadata.dataset) if metadata.dataset else "",
        "input": f"{size.height}x{size.width} pixels, RGB; other sizes: {size.resize}, {size.interpolation}",
        "network": str(metadata.training.get("backbone") or "the project's own"),
        "parameters": f"{metadata.parameters:,}; {metadata.megaflops:,.0f} MFLOP a picture",
        "calibration": calibration_in_words(metadata.calibration) if metadata.calibration else "none",
        "familiar": familiarity_in_words(metadata.familiarity) if metadata.familiarity else "",
        "libraries": ", ".join(f"{name} {version}" for name, version in metadata.libraries.items()),
    }
    return tuple((name, value) for name, value in facts.items() if value)
