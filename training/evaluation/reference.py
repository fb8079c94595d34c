"""What a version answers to pictures that it has not learned from, for a service to compare its later answers with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact import Histogram, Reference
from artifact.layout import REFERENCE_EMBEDDING
from training.evaluation.few_images import LEAST_HELD_OUT

CONFIDENCE_EDGES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""The borders between the bins of the largest probability: finer near 1, where most of the answers are."""

_SCORE_BINS = 10


def reference_of(
    labels: Sequence[str], outputs: Mapping[str, NDArray[np.float32]], measured_on: str
) -> Reference | None:
    """Return what ``outputs`` look like: ``probabilities`` [N, classes], and where there is one, ``familiarity`` [N].

    The bins of the familiarity have a tenth of the pictures each. Fewer than 50 pictures do not tell what to expect;
    then there is none.
    """
    probabilities, scores = outputs["probabilities"], outputs.get("familiarity")
    if len(probabilities) < LEAST_HELD_OUT:
        return None
    predicted = np.bincount(probabilities.argmax(axis=1), minlength=len(labels)).tolist()
    return Reference(
        measured_on,
        len(probabilities),
        {label: count for label, count in zip(labels, predicted, strict=True) if count},
        _histogram(probabilities.max(axis=1), CONFIDENCE_EDGES),
        None if scores is None else _histogram(scores, _deciles(scores)),
    )


def write_embedding(version: Path, embeddings: NDArray[np.float32]) -> None:
    """Write the mean of ``embeddings`` float32 [N, D] and their standard deviations into the version in a folder.

    Raises:
        OSError: the folder cannot be written.
    """
    moments = np.stack([embeddings.mean(axis=0), embeddings.std(axis=0)])
    file = version / REFERENCE_EMBEDDING
    file.parent.mkdir(exist_ok=True)  # which int8 makes as well, where there is one
    file.write_bytes(moments.astype("<f4").tobytes())


def _deciles(scores: NDArray[np.float32]) -> tuple[float, ...]:
    inner = np.linspace(0, 1, _SCORE_BINS + 1)[1:-1]
    return tuple(np.unique(np.quantile(scores.astype(np.float64), inner)).tolist())


def _histogram(values: NDArray[np.float32], edges: Sequence[float]) -> Histogram:
    """Count ``values`` in bins; one that lies on a border belongs to the bin above it."""
    bins = np.searchsorted(edges, values, side="right")
    return Histogram(tuple(edges), tuple(np.bincount(bins, minlength=len(edges) + 1).tolist()))
