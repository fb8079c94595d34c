"""An epoch on the device learns what the same batches teach one by one: the recipe, the seeds and the results stay."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.conftest import environment

pytestmark = [pytest.mark.process, pytest.mark.slow]


def _figures(*arguments: str | Path) -> dict[str, Any]:
    """Return what ``epochs_on_jax.py`` prints."""
    pytest.importorskip("jax")
    script = Path(__file__).with_name("epochs_on_jax.py")
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def test_without_augmentation_the_steps_are_the_same() -> None:
    """Over 120 steps losses and accuracies are those of Keras's fit but for rounding, and so is what a teacher says."""
    figures = _figures("taught")
    assert figures["steps"] == 120
    assert figures["host"].keys() == figures["device"].keys() == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(figures["device"][name], figures["host"][name], rtol=0.02)
        np.testing.assert_allclose(figures["device"][name][0], figures["host"][name][0], rtol=1e-3)
    assert figures["host"]["accuracy"][0] < 0.9 < figures["host"]["accuracy"][-1]


def test_with_augmentation_the_losses_are_the_same_within_noise() -> None:
    """The pictures are the same within a level or two, so the curves of 120 steps are; so are the statistics after."""
    figures = _figures("augmented")
    for name, most in (("loss", 0.03), ("val_loss", 0.1)):
        apart = np.abs(np.subtract(figures["device"][name], figures["host"][name]))
        assert apart.mean() < most * np.mean(figures["host"][name]), name
    assert figures["host"]["loss"][-1] < 0.8 * figures["host"]["loss"][0]
    assert figures["recalibrated apart"] < 0.01
    assert figures["answers apart"] < 1e-3


def test_the_trainer_takes_it_where_the_pictures_fit(tmp_path: Path) -> None:
    """It says so; every epoch is saved, a signal costs none, and what is resumed has the weights of an unbroken run.

    Where the memory has less room than the pictures need, they go there batch by batch, and that is said as well.
    """
    figures = _figures("trainer", tmp_path)
    lines = figures["printed"].splitlines()
    assert lines.count("The pictures lie in the GPU's memory (2 MB), and an epoch is one compiled function.") == 3
    assert any("after epoch 1 of 3" in line for line in lines)
    assert "Pictures go to the GPU batch by batch: they take 2 MB, and a quarter of its memory is 1." in lines
    assert figures["saved"] == 1
    assert figures["weights apart"] < 1e-6
    assert [set(record) for record in figures["history"]] == [
        {"loss", "accuracy", "val_loss", "val_accuracy", "seconds"}
    ] * 3
