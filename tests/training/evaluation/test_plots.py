"""Plots can be drawn for whatever labels people have."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.dataset import Split
from training.evaluation.accuracy import Evaluation
from training.evaluation.plots import save_plots


def evaluation(labels: tuple[str, ...], count: int) -> Evaluation:
    """Return random answers to random pictures."""
    rng = np.random.default_rng(0)
    split = Split(rng.integers(256, size=(count, 8, 8, 3), dtype=np.uint8), rng.integers(len(labels), size=count))
    probabilities = rng.dirichlet(np.ones(len(labels)), size=count).astype(np.float32)
    return Evaluation(labels, "made up", split, probabilities)


def test_any_label_can_be_drawn(tmp_path: Path) -> None:
    """Labels that look like formulas, or in scripts that the font lacks, do not end a training at its last step."""
    labels = ("a$b_{$", "$\\frac$", "猫", "собака", "x_1^2")
    assert {"confusion_matrix.png", "mistakes.png"} <= set(save_plots(evaluation(labels, 20), [], tmp_path))


@pytest.mark.slow
def test_many_labels_make_a_picture_of_bearable_size(tmp_path: Path) -> None:
    """The confusion matrix of fifty labels is no larger than a screen or two."""
    save_plots(evaluation(tuple(f"label {number}" for number in range(50)), 100), [], tmp_path)
    with Image.open(tmp_path / "confusion_matrix.png") as image:
        assert max(image.size) <= 2400
