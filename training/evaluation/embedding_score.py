"""The score ``familiarity`` of a head on a frozen backbone: what the embedding tells beside the logits.

Three figures are added, each in units of its spread over pictures that were not learned from:

- the energy, as for any network (``training.evaluation.familiarity``);
- the relative Mahalanobis distance of Ren et al. (arXiv 2106.09022): that to the nearest class, less that to all of
  them together, so that what is odd in the same way for every class does not count. In the main directions of the
  embeddings alone, since few pictures do not tell how all of them vary;
- the residual of Wang et al. (arXiv 2203.10807): how much of the embedding lies outside of these directions.

The measurement that chose them is in docs/design.md.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from training.data.dataset import Classes
from training.evaluation.familiarity import Scores, score_of

Vectors = NDArray[np.float32]  # [N, D]
Parts = NDArray[np.float32]  # [N, 3]: energy, minus relative Mahalanobis distance, minus residual

_DIRECTIONS = 64
_PICTURES_OF_A_DIRECTION = 4  # at least, in which its variance is told
_LEAST_VARIANCE = 1e-6  # of the largest one
_NO_VARIANCE = 1e-12  # where all pictures are the same


@dataclass(frozen=True)
class Distances:
    """How the embeddings of a training lie, in R main directions.

    ``mean`` float32 [D] and ``directions`` float32 [D, R] lead to them; ``within`` and ``overall``, float32 [R, R],
    bring the covariance inside of the classes, and that of all pictures, to the identity; ``classes`` float32 [K, R]
    are the classes' means after ``within``.
    """

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    within: NDArray[np.float32]
    overall: NDArray[np.float32]
    classes: NDArray[np.float32]

    def parts(self, embeddings: Vectors, logits: NDArray[np.float32]) -> Parts:
        """Return what is added up, float32 [N, 3], of pictures with ``logits`` [N, K]: higher is more familiar."""
        centred = embeddings - self.mean
        main = centred @ self.directions  # [N, R]
        inside, overall = main @ self.within, main @ self.overall
        # The squared distance to a class, less that of the mean, so that [N, K, R] numbers need no memory.
        nearest = (2 * inside @ self.classes.T - (self.classes**2).sum(axis=1)).max(axis=1)
        relative = (overall**2).sum(axis=1) - (inside**2).sum(axis=1) + nearest
        residual = np.sqrt(np.maximum((centred**2).sum(axis=1) - (main**2).sum(axis=1), 0))
        return np.stack([score_of(logits), relative, -residual], axis=1)


@dataclass(frozen=True)
class EmbeddingScore:
    """The score: the sum of the parts times ``weights`` float32 [3], less what this is on average, ``offset``."""

    distances: Distances
    weights: NDArray[np.float32]
    offset: float

    def __call__(self, embeddings: Vectors, logits: NDArray[np.float32]) -> Scores:
        """Return the familiarity float32 [N] of pictures with ``embeddings`` [N, D] and ``logits`` [N, K]."""
        return self.of_parts(self.distances.parts(embeddings, logits))

    def of_parts(self, parts: Parts) -> Scores:
        """Return the familiarity float32 [N] of pictures with these ``parts`` [N, 3]."""
        scores: Scores = (parts @ self.weights - np.float32(self.offset)).astype(np.float32)
        return scores


def main_directions(centred: Vectors, number: int) -> NDArray[np.float32]:
    """Return the ``number`` directions in which ``centred`` float32 [N, D] varies most, float32 [D, R], least first.

    There are at most D. The others are not computed, which would take several times as long.
    """
    last = centred.shape[1] - 1
    with threadpool_limits(1, "blas"):  # several threads mostly wait for one another
        # In float32 they would not be as exactly at right angles as the distances need, which are small differences.
        covariance = (centred.T @ centred).astype(np.float64)
        _, axes = eigh(covariance, subset_by_index=(max(last - number + 1, 0), last))
    directions: NDArray[np.float32] = axes.astype(np.float32)
    return directions


def fit_distances(embeddings: Vectors, classes: Classes) -> Distances:
    """Find out how ``embeddings`` float32 [N, D] of pictures of ``classes`` int64 [N] lie."""
    mean = embeddings.mean(axis=0)
    centred = embeddings - mean
    kinds = np.unique(classes)
    most = max((len(embeddings) - len(kinds)) // _PICTURES_OF_A_DIRECTION, 1)
    directions = main_directions(centred, min(_DIRECTIONS, most))[:, ::-1]  # [D, R]
    main = centred @ directions
    means = np.stack([main[classes == kind].mean(axis=0) for kind in kinds])  # [K, R]
    inside = main - means[np.searchsorted(kinds, classes)]
    least = max(_LEAST_VARIANCE * float((main**2).mean(axis=0).max()), _NO_VARIANCE)
    within, overall = _to_identity(inside, least), _to_identity(main, least)
    return Distances(mean, directions, within, overall, means @ within)


def fit_score(distances: Distances, unseen: Parts) -> EmbeddingScore:
    """Return the score whose parts count alike over pictures with the parts ``unseen`` float32 [N, 3]."""
    weights = (1 / np.maximum(unseen.std(axis=0), np.finfo(np.float32).eps)).astype(np.float32)
    return EmbeddingScore(distances, weights, float(unseen.mean(axis=0) @ weights))


def _to_identity(vectors: Vectors, least: float) -> NDArray[np.float32]:
    """Return what brings the covariance of centred ``vectors`` float32 [N, R] to the identity, float32 [R, R].

    Where a variance is below ``least``, as without two pictures of any class, that takes its place.
    """
    variances, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors / len(vectors))
    found: NDArray[np.float32] = (axes / np.sqrt(np.maximum(variances, least))).astype(np.float32)
    return found
