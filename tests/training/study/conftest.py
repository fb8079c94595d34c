"""A small CIFAR-10 whose classes are colours, so that a study of it learns in seconds."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import BATCHES, LABELS, write_archive

_PER_BATCH = 40
_COLOURS = np.random.default_rng(7).integers(256, size=(len(LABELS), 3))


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive in CIFAR-10's layout with 200 training and 40 test pictures."""
    rng = np.random.default_rng(0)
    files = {"batches.meta": pickle.dumps({b"label_names": [label.encode() for label in LABELS]})}
    for batch in BATCHES:
        classes = rng.integers(len(LABELS), size=_PER_BATCH)
        planes = _COLOURS[classes][:, :, None] + rng.normal(0, 20, (_PER_BATCH, 3, 32 * 32))  # [40, 3, 1024]
        content = {b"data": planes.clip(0, 255).astype(np.uint8).reshape(_PER_BATCH, -1), b"labels": classes.tolist()}
        files[batch] = pickle.dumps(content, protocol=2)
    return write_archive(tmp_path_factory.mktemp("colours") / "cifar.tar.gz", files)
