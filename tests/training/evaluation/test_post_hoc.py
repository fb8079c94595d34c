"""What is learned after the training comes from pictures that it has not seen, and from no others."""

import dataclasses

import keras
import numpy as np
import pytest

from training.data.dataset import Dataset, Split
from training.evaluation.calibration import Correction
from training.evaluation.familiarity import score_of
from training.evaluation.post_hoc import PostHoc, fit_post_hoc, logits_of
from training.network.model import build, fit_to_pixels

pytestmark = pytest.mark.keras


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Return an untrained network."""
    model = build((32, 32, 3), 3, (8, 16), seed=0)
    fit_to_pixels(model, np.random.default_rng(0).integers(256, size=(50, 32, 32, 3), dtype=np.uint8))
    return model


def test_only_the_last_pictures_count(model: keras.Model, small: Dataset) -> None:
    """Of twelve pictures, five of which no training has seen, the other seven change nothing."""
    fitted = fit_post_hoc(model, small, 5)
    assert fitted.calibration is not None
    assert fitted.familiarity is not None
    assert (fitted.calibration.images, fitted.calibration.measured_on) == (5, "small validation")
    assert fitted.correction == Correction(fitted.calibration.temperature)
    assert fitted.threshold == fitted.familiarity.threshold
    scores = score_of(logits_of(model, small.validation.images[-5:]))
    assert fitted.threshold == scores.min()
    seen = np.zeros_like(small.validation.images[:7])
    other = Split(np.concatenate([seen, small.validation.images[-5:]]), small.validation.classes)
    assert fit_post_hoc(model, dataclasses.replace(small, validation=other), 5) == fitted


def test_nothing_is_learned_from_nothing(model: keras.Model, small: Dataset) -> None:
    """Without such pictures nothing is corrected, and there is no threshold."""
    assert fit_post_hoc(model, small, 0, 0.2) == PostHoc(None, None)
    assert (PostHoc().correction, PostHoc().threshold) == (Correction(1.0, 0.0), None)
