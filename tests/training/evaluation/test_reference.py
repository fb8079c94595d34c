"""What answers are to be expected: counted by label and in bins, of pictures enough."""

from pathlib import Path

import numpy as np
import pytest

from artifact import Histogram
from artifact.layout import REFERENCE_EMBEDDING
from training.evaluation.reference import CONFIDENCE_EDGES, reference_of, write_embedding

LABELS = ("red", "green", "blue")


def outputs(images: int) -> dict[str, np.ndarray]:
    """Return answers of a version: two thirds red and one third green, surer from picture to picture."""
    sure = np.linspace(0.4, 1.0, images, dtype=np.float32)
    probabilities = np.stack([sure, (1 - sure) / 2, (1 - sure) / 2], axis=1)
    probabilities[::3] = probabilities[::3][:, [1, 0, 2]]
    return {"probabilities": probabilities, "familiarity": np.arange(images, dtype=np.float32)}


def test_every_picture_is_counted_once_in_each_part() -> None:
    """Labels that nothing was taken for are left out; a tenth of the pictures is in each bin of the familiarity."""
    found = reference_of(LABELS, outputs(60), "made-up test")
    assert found is not None
    assert (found.measured_on, found.images, found.labels) == ("made-up test", 60, {"red": 40, "green": 20})
    assert found.confidence.edges == CONFIDENCE_EDGES
    assert sum(found.confidence.counts) == 60
    assert found.confidence.counts[:3] == (0, 0, 0)
    assert found.familiarity is not None
    assert len(found.familiarity.edges) == 9
    assert found.familiarity.counts == (6,) * 10


def test_a_score_that_hardly_changes_has_fewer_bins() -> None:
    """Borders that fall together are one, so that no bin is empty for that."""
    answers = {**outputs(60), "familiarity": np.repeat(np.array([1, 2], np.float32), [50, 10])}
    found = reference_of(LABELS, answers, "made-up test")
    assert found is not None
    assert found.familiarity == Histogram((1.0, 2.0), (0, 50, 10))


def test_a_version_may_have_no_score() -> None:
    """Then there are labels and confidence."""
    found = reference_of(LABELS, {"probabilities": outputs(60)["probabilities"]}, "made-up test")
    assert found is not None
    assert found.familiarity is None


@pytest.mark.parametrize(("images", "enough"), [(49, False), (50, True)])
def test_few_pictures_tell_nothing(images: int, enough: bool) -> None:
    """As for a threshold, there have to be fifty."""
    assert (reference_of(LABELS, outputs(images), "made-up test") is not None) is enough


def test_the_embedding_is_mean_and_standard_deviation(tmp_path: Path) -> None:
    """They lie in a file of their own, one after the other."""
    embeddings = np.random.default_rng(0).normal(3, 2, (1000, 5)).astype(np.float32)
    write_embedding(tmp_path, embeddings)
    mean, spread = np.fromfile(tmp_path / REFERENCE_EMBEDDING, "<f4").reshape(2, 5)
    np.testing.assert_allclose(mean, embeddings.mean(axis=0))
    np.testing.assert_allclose(spread, embeddings.std(axis=0))
