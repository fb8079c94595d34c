"""The score ``familiarity``: how much a picture looks like those that a network was trained on.

It is the negative free energy of Liu et al., "Energy-based Out-of-distribution Detection" (arXiv 2010.03759): the
logarithm of the sum of the exponentials of the logits, which is smaller for pictures unlike the training's. The
measurement that chose it is in docs/design.md. Where a picture may have several labels, it is the joint energy of Wang
et al., "Can multi-label classification networks know what they don't know?" (arXiv 2109.14162): the sum over the labels
of that of each, log(1 + exp(logit)).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from artifact import Familiarity
from training.data.dataset import Pixels
from training.evaluation.inference import Score
from training.evaluation.out_of_distribution import KINDS, draw
from training.progress import bar

Scores = NDArray[np.float32]  # [N], higher where a picture is more familiar

_SHARE = 0.95
_IMAGES_OF_A_KIND, _FEWEST_OF_A_KIND = 500, 25
_PIXELS_OF_A_KIND = 2**21


def score_of(logits: NDArray[np.float32], *, multi_label: bool = False) -> Scores:
    """Return the familiarity float32 [N] of pictures with ``logits`` float32 [N, classes], before any calibration."""
    scores: Scores = np.logaddexp(np.float32(0), logits).sum(axis=1) if multi_label else logsumexp(logits, axis=1)
    return scores


def find_threshold(scores: Scores, measured_on: str) -> Familiarity:
    """Return the threshold that 95% of ``scores`` reach, those of pictures that no training has seen."""
    threshold = np.quantile(scores, 1 - _SHARE, method="lower")  # one of the scores, so that no fewer reach it
    return Familiarity(float(threshold), _SHARE, measured_on, len(scores))


def measure(score: Score, familiar: Scores, known: Pixels, threshold: float | None) -> dict[str, dict[str, float]]:
    """Find out how well ``score`` tells ``known`` pictures uint8 [N, H, W, 3] from those of each other kind.

    ``familiar`` are the scores [N] of the known ones. Returns for each kind the ``auroc``, and with a ``threshold`` the
    share that is called ``unfamiliar``. At most 500 of each kind are scored, fewer of large ones.
    """
    height, width = known.shape[1:3]
    number = min(max(_PIXELS_OF_A_KIND // (height * width), _FEWEST_OF_A_KIND), _IMAGES_OF_A_KIND)
    figures = {}
    with bar(len(KINDS), "Pictures of something else", "kind") as shown:
        for kind in KINDS:
            scores = score(draw(kind, known, number))
            figures[kind] = {"auroc": auroc(familiar, scores)}
            if threshold is not None:
                figures[kind]["unfamiliar"] = float((scores < threshold).mean())
            shown.update(1)
    return figures


def auroc(familiar: Scores, others: Scores) -> float:
    """Return the area under the receiver operating characteristic of the score, from 0 to 1; 0.5 is chance.

    It is the probability that a familiar picture scores higher than another one; a tie counts half.
    """
    ordered = np.sort(others)
    below, up_to = (np.searchsorted(ordered, familiar, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(ordered)))
