"""The score of a head on a backbone: the distances are right, and it tells what the energy does not."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import mahalanobis

from training.data.dataset import Classes
from training.evaluation.embedding_score import fit_distances, fit_score
from training.evaluation.familiarity import auroc, score_of

SIZE = 40  # numbers of an embedding


def drawn(count: int, seed: int, classes: int = 3) -> tuple[NDArray[np.float32], Classes]:
    """Return embeddings of pictures around a point for each class, in few of all directions, and their classes."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % classes
    centres = np.random.default_rng(0).normal(size=(classes, 5)) * 4
    within = centres[kinds] + rng.normal(size=(count, 5))
    return np.hstack([within, rng.normal(size=(count, SIZE - 5)) * 0.05]).astype(np.float32) + 1, kinds


def logits(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return those of a head that looks at three of the numbers."""
    return embeddings[:, :3] - 1


def test_distances_are_those_of_the_paper() -> None:
    """In all directions, they are SciPy's: to all pictures together, less that to the nearest of the classes."""
    embeddings, classes = drawn(4000, 1)
    known = fit_distances(embeddings, classes)
    assert known.directions.shape == (SIZE, SIZE)
    others = np.random.default_rng(2).normal(1, 3, (20, SIZE)).astype(np.float32)
    means = np.stack([embeddings[classes == kind].mean(axis=0) for kind in range(3)])
    inside = np.linalg.inv(np.cov((embeddings - means[classes]).T, bias=True))
    overall = np.linalg.inv(np.cov(embeddings.T, bias=True))
    expected = [
        mahalanobis(other, embeddings.mean(axis=0), overall) ** 2
        - min(mahalanobis(other, mean, inside) ** 2 for mean in means)
        for other in others
    ]
    parts = known.parts(others, logits(others))
    np.testing.assert_allclose(parts[:, 1], expected, rtol=1e-2)
    np.testing.assert_allclose(parts[:, 0], score_of(logits(others)))
    assert np.abs(parts[:, 2]).max() < 0.1, "nothing lies outside of all directions"


@pytest.mark.parametrize(("pictures", "classes", "directions"), [(50, 3, 11), (50, 50, 1), (60, 3, 14), (400, 3, SIZE)])
def test_few_pictures_have_few_directions(pictures: int, classes: int, directions: int) -> None:
    """There are four pictures for each at least, of which its variance is told; every score is a number."""
    embeddings, kinds = drawn(pictures, 1, classes)
    known = fit_distances(embeddings, kinds)
    assert known.directions.shape == (SIZE, directions)
    assert np.isfinite(known.parts(embeddings, logits(embeddings))).all()


def test_pictures_that_are_all_the_same_have_a_score() -> None:
    """Nothing is divided by a spread of nothing."""
    embeddings = np.ones((60, SIZE), np.float32)
    known = fit_distances(embeddings, np.arange(60) % 3)
    score = fit_score(known, known.parts(embeddings, logits(embeddings)))
    assert np.isfinite(score(embeddings, logits(embeddings))).all()


def test_the_parts_count_alike() -> None:
    """Over the pictures that it was made by, the score is 0 on average, and each part adds as much to its spread."""
    embeddings, classes = drawn(300, 1)
    unseen, _ = drawn(200, 2)
    known = fit_distances(embeddings, classes)
    parts = known.parts(unseen, logits(unseen))
    score = fit_score(known, parts)
    assert score(unseen, logits(unseen)).mean() == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose((parts * score.weights).std(axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize("kind", ["between the classes", "elsewhere"])
def test_it_tells_what_the_energy_does_not(kind: str) -> None:
    """Both what is like no class in the main directions, and what lies outside of them, is less familiar."""
    embeddings, classes = drawn(300, 1)
    unseen, _ = drawn(200, 2)
    others = unseen.copy()
    if kind == "elsewhere":
        others[:, -10:] += 1
    else:
        others[:, 3:5] = 1 + 12 * np.random.default_rng(3).choice([-1, 1], (200, 2))
    known = fit_distances(embeddings, classes)
    score = fit_score(known, known.parts(unseen, logits(unseen)))
    told = auroc(score(unseen, logits(unseen)), score(others, logits(others)))
    assert auroc(score_of(logits(unseen)), score_of(logits(others))) == 0.5
    assert told > 0.95
