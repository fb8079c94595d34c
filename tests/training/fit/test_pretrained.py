"""The head's cross-validation says what it would get right of pictures that it has not seen, not of their copies."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.training.backbones import NAME, blots
from training.data.dataset import Split, hold_out
from training.fit import pretrained
from training.fit.checkpoints import RunFolder
from training.fit.recipe import recipe
from training.fit.train import Job
from training.network.registry import NO_WEIGHTS


@pytest.mark.keras
@pytest.mark.slow
def test_copies_are_in_one_fold(tmp_path: Path) -> None:
    """Colours at random cannot be learned, so no head that saw no copy of a picture gets more right than chance."""
    pictures = 45
    split = Split(np.tile(blots(pictures), (2, 1, 1, 1)), np.tile(np.arange(pictures) % 3, 2))
    groups = np.tile(np.arange(pictures), 2)
    dataset = dataclasses.replace(hold_out("blots", ("a", "b", "c"), split, split[:6], 10), groups=groups)
    wanted = dataclasses.replace(recipe("standard"), backbone=NAME, backbone_weights=NO_WEIGHTS)
    folds = pretrained.fit(Job(dataset, wanted, RunFolder(tmp_path))).folds
    assert len(folds.rows) == 2 * pictures
    for unseen in folds.unseen:
        learned = np.setdiff1d(np.arange(2 * pictures), unseen)
        assert not set(groups[unseen].tolist()) & set(groups[learned].tolist())
