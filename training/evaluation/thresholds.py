"""From which probability on a label is told, where a picture may have several: chosen on pictures that were held out.

Each label has the threshold with the best F1, the harmonic mean of precision and recall. Where few pictures have it,
that would be chance, so it gets the one that is best for all labels together. F1 is best for a label that is not told
at all where it is told of every picture (Lipton et al., arXiv 1402.1892), so there is a lowest threshold.
"""

import numpy as np
from numpy.typing import NDArray

from training.evaluation.average_precision import Has, Probabilities
from training.evaluation.few_images import LEAST_HELD_OUT

Thresholds = NDArray[np.float64]
"""float64 [labels]"""

EVEN_ODDS = 0.5
LEAST_POSITIVES = 10
"""Pictures that have a label, and that do not, from which on it gets a threshold and a calibration of its own."""
_LOWEST, _HIGHEST = 0.05, 0.95


def choose_thresholds(probabilities: Probabilities, has: Has) -> Thresholds:
    """Return the threshold of each label, given the answers to pictures that had no part in the training.

    Below ``LEAST_HELD_OUT`` pictures there is nothing to choose by, and all are even odds.
    """
    pictures, labels = has.shape
    if pictures < LEAST_HELD_OUT or not has.any():
        return np.full(labels, EVEN_ODDS)
    shared = best_threshold(probabilities.reshape(-1), has.reshape(-1))
    chosen = [
        best_threshold(probabilities[:, label], has[:, label]) if enough else shared
        for label, enough in enumerate(enough_of(has).tolist())
    ]
    return np.round(chosen, 4)  # more digits would tell nothing


def enough_of(has: Has) -> NDArray[np.bool_]:
    """Return which labels enough pictures have, and enough do not, to fit something to them alone; bool [labels]."""
    with_it = has.sum(axis=0)
    enough: NDArray[np.bool_] = np.minimum(with_it, len(has) - with_it) >= LEAST_POSITIVES
    return enough


def best_threshold(probabilities: NDArray[np.float32], has: NDArray[np.bool_]) -> float:
    """Return the threshold with the best F1 for one label, of [N] answers; halfway to the next lower probability."""
    order = np.argsort(-probabilities, kind="stable")
    scores = probabilities[order].astype(np.float64)
    hits = np.cumsum(has[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + has.sum())
    f1[:-1][scores[:-1] == scores[1:]] = -1.0  # those that are as probable are told together
    best = int(f1.argmax())
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    return float(np.clip((scores[best] + below) / 2, _LOWEST, _HIGHEST))
