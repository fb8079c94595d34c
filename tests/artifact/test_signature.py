"""Shapes are read from a SavedModel without TensorFlow."""

from pathlib import Path

import pytest

from artifact.signature import signature_shapes
from tests import models


@pytest.mark.slow
def test_shapes_of_a_model_that_tensorflow_wrote(tmp_path: Path) -> None:
    """Both signatures of a real SavedModel have the shapes that the contract asks for."""
    content = (models.publish(tmp_path) / "saved_model.pb").read_bytes()
    assert signature_shapes(content, "serving_default") == ({"images": (-1, 32, 32, 3)}, {"probabilities": (-1, 3)})
    assert signature_shapes(content, "serve_bytes") == ({"image_bytes": (-1,)}, {"probabilities": (-1, 3)})
    assert signature_shapes(content, "absent") is None
