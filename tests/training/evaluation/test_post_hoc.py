"""What is learned after the training comes from pictures that it has not seen, and from no others."""

import dataclasses

import keras
import numpy as np
import pytest

from training.data.dataset import Dataset, Split, hold_out
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


@pytest.fixture
def large() -> Dataset:
    """Return random pictures, 60 of them for validation."""
    images = np.random.default_rng(1).integers(256, size=(100, 32, 32, 3), dtype=np.uint8)
    classes = np.arange(100) % 3
    return hold_out("large", ("a", "b", "c"), Split(images[:90], classes[:90]), Split(images[90:], classes[90:]), 60)


def test_only_the_last_pictures_count(model: keras.Model, large: Dataset) -> None:
    """Of 60 pictures, 53 of which no training has seen, the other seven change nothing."""
    fitted = fit_post_hoc(model, large, 53)
    assert fitted.calibration is not None
    assert fitted.familiarity is not None
    assert (fitted.calibration.images, fitted.calibration.measured_on) == (53, "large validation")
    assert fitted.correction == Correction(fitted.calibration.temperature)
    assert fitted.threshold == fitted.familiarity.threshold
    scores = score_of(logits_of(model, large.validation.images[-53:]))
    assert fitted.threshold == np.sort(scores)[2]
    seen = np.zeros_like(large.validation.images[:7])
    other = Split(np.concatenate([seen, large.validation.images[-53:]]), large.validation.classes)
    assert fit_post_hoc(model, dataclasses.replace(large, validation=other), 53) == fitted


@pytest.mark.parametrize(("held_out", "enough"), [(0, False), (49, False), (50, True)])
def test_nothing_is_learned_from_too_little(model: keras.Model, large: Dataset, held_out: int, enough: bool) -> None:
    """Without fifty such pictures nothing is corrected, and there is no threshold."""
    fitted = fit_post_hoc(model, large, held_out, 0.2)
    assert (fitted != PostHoc(None, None)) is enough
    assert (PostHoc().correction, PostHoc().threshold) == (Correction(1.0, 0.0), None)
