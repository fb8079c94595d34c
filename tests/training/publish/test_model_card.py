"""The model card says what was measured, and how far its figures go."""

import dataclasses

import pytest

from artifact import Calibration, Int8, Metadata, Metrics
from tests.models import metadata
from training.publish.model_card import calibration_in_words, int8_accuracy, model_card

CALIBRATION = Calibration(1.5, "pets validation", 60, 0.2, 0.3, 0.04, 0.05)


def card(images: int, held_out: int, calibration: Calibration | None = None) -> str:
    """Return the card of a version that was tested with so many pictures, and learned without ``held_out`` others."""
    record: Metadata = dataclasses.replace(
        metadata("pets"),
        metrics=Metrics("pets test", images, 0.75, 0.125),
        training={"validation_images": held_out},
        dataset={"name": "pets", "train": 100, "validation": held_out, "test": images},
        calibration=calibration,
    )
    return model_card(record, [])


def test_figures_of_few_pictures_are_told_as_such() -> None:
    """The accuracy has its interval, and a calibration error is not exact; of many both stand alone."""
    few, many = card(8, 60), card(1000, 60)
    assert "| accuracy | 75.00% of 8 images (pets test; 95%: 40.9 to 92.9), one forward pass each |\n" in few
    assert "| expected calibration error, 15 bins | 0.1250 (too few images to be exact) |\n" in few
    assert "| accuracy | 75.00% of 1,000 images (pets test), one forward pass each |\n" in many
    assert "| expected calibration error, 15 bins | 0.1250 |\n" in many


@pytest.mark.parametrize(("held_out", "there_were"), [(0, "none"), (8, "8")])
def test_probabilities_that_were_not_calibrated_are_not_called_so(held_out: int, there_were: str) -> None:
    """Where too few pictures were held out, the card says that this is why."""
    found = card(200, held_out)
    assert "are calibrated" not in found
    assert "the network's own" in found
    assert f"to calibrate them, 50 held-out images are needed, and there were {there_were}.\n" in found


def test_what_was_calibrated_is_called_so() -> None:
    """With a calibration there is no word of what would be missing; one of another trainer's has no reason."""
    assert "Its probabilities are calibrated: " in card(200, 60, CALIBRATION)
    assert "surer or less sure than it is right.\n" in card(200, 60)


def test_the_calibration_of_few_pictures_is_not_exact() -> None:
    """The error that it leaves is one of the pictures that it was fitted to."""
    assert calibration_in_words(CALIBRATION).endswith("from 0.0500 to 0.0400 (too few images to be exact)")
    assert calibration_in_words(dataclasses.replace(CALIBRATION, images=200)).endswith("from 0.0500 to 0.0400")


def test_int8_of_few_pictures_says_what_was_looked_at_instead() -> None:
    """Its accuracy on these does not tell what it costs, so the card has how often both agree."""
    int8 = Int8("pets validation", 8, 0.875, 1.0, 72, agreement=0.9875, agreement_images=80)
    assert int8_accuracy(int8) == (
        "87.50% of 8 images (pets validation; 95%: 52.9 to 97.8), where float32 has 100.00% (95%: 67.6 to 100.0); "
        "so few images do not tell what int8 costs; it gives the same label as float32 to 98.75% of 80 images, "
        "those of the training among them"
    )
    many = Int8("CIFAR-10 validation", 1000, 0.962, 0.965, 1000)
    assert int8_accuracy(many) == "96.20% of 1,000 images (CIFAR-10 validation), where float32 has 96.50%"


def test_a_label_stays_in_its_cell() -> None:
    """Whatever a folder was called, its line has a cell for the label and one for each figure."""
    names = ("new\nline", "a|b", "grün")
    figures = {name: {"precision": 1.0, "recall": 0.5} for name in names}
    metrics = Metrics("pets test", 8, 0.75, 0.125, per_class=figures)
    record = dataclasses.replace(metadata("pets"), labels=names, metrics=metrics, dataset={"name": "pets"})
    lines = model_card(record, []).splitlines()
    for cell in (r"new\nline", r"a\|b", "grün"):
        assert f"| {cell} | 100.00% | 50.00% |" in lines
