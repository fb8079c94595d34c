"""What an engine's outputs say."""

import dataclasses

import numpy as np
import pytest

from artifact import Familiarity
from service.inference.predictions import interpret
from tests.models import metadata

OUTPUTS = np.array([[0.5, 0.25, 0.25, 1.5], [0.75, 0.25, 0, 2.0], [1, 0, 0, np.nan]], np.float32)


def test_the_threshold_decides() -> None:
    """The last column is the score; a picture is familiar from the threshold on, and never without a number."""
    record = dataclasses.replace(metadata("colours"), familiarity=Familiarity(2.0, 0.95, "made up", 10))
    probabilities, familiarity, familiar, embedding, told = interpret(OUTPUTS, record)
    np.testing.assert_array_equal(probabilities, OUTPUTS[:, :3])
    np.testing.assert_array_equal(familiarity, OUTPUTS[:, 3])
    assert familiar == [False, True, False]
    assert embedding is None
    assert told is None


def test_versions_without_a_threshold_tell_nothing() -> None:
    """All columns are probabilities then, as they are."""
    probabilities, *others = interpret(OUTPUTS[:, :3], metadata("colours"))
    np.testing.assert_array_equal(probabilities, OUTPUTS[:, :3])
    assert others == [None] * 4


def test_each_label_has_its_own_threshold() -> None:
    """Where a picture may have several: it is told from there on, which may be all of them or none."""
    thresholds = dict(zip(metadata("colours").labels, (0.6, 0.25, 0.1), strict=True))
    record = dataclasses.replace(metadata("colours"), task="multi-label", thresholds=thresholds)
    told = interpret(OUTPUTS[:, :3], record).told
    assert told is not None
    assert told.tolist() == [[False, True, True], [True, True, False], [True, False, False]]


@pytest.mark.parametrize("threshold", [None, Familiarity(2.0, 0.95, "made up", 10)])
def test_what_comes_last_is_the_embedding(threshold: Familiarity | None) -> None:
    """The columns behind the probabilities, and behind the score where the version tells it, are the embedding."""
    record = dataclasses.replace(metadata("colours"), familiarity=threshold)
    rows = np.arange(10, dtype=np.float32).reshape(2, 5)
    before = OUTPUTS[:2] if threshold else OUTPUTS[:2, :3]
    probabilities, familiarity, _, embedding, _ = interpret(np.hstack([before, rows]), record)
    np.testing.assert_array_equal(probabilities, OUTPUTS[:2, :3])
    np.testing.assert_array_equal(embedding, rows)
    assert (familiarity is not None) == (threshold is not None)
