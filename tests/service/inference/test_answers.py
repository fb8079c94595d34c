"""What an engine's rows say."""

import dataclasses

import numpy as np

from artifact import Familiarity
from service.inference.answers import read
from tests.models import metadata

ROWS = np.array([[0.5, 0.25, 0.25, 1.5], [0.75, 0.25, 0, 2.0], [1, 0, 0, np.nan]], np.float32)


def test_the_threshold_decides() -> None:
    """The last column is the score; a picture is familiar from the threshold on, and never without a number."""
    record = dataclasses.replace(metadata("colours"), familiarity=Familiarity(2.0, 0.95, "made up", 10))
    probabilities, familiarity, familiar = read(ROWS, record)
    np.testing.assert_array_equal(probabilities, ROWS[:, :3])
    np.testing.assert_array_equal(familiarity, ROWS[:, 3])
    assert familiar == [False, True, False]


def test_versions_without_a_threshold_tell_nothing() -> None:
    """All columns are probabilities then, as they are."""
    probabilities, familiarity, familiar = read(ROWS[:, :3], metadata("colours"))
    np.testing.assert_array_equal(probabilities, ROWS[:, :3])
    assert (familiarity, familiar) == (None, None)
