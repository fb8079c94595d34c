"""A network that OpenVINO runs answers to any number of pictures, each as if it were alone."""

from pathlib import Path

import numpy as np
import pytest

from machine import import_openvino
from training.evaluation.inference import answers_to, openvino_answer


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Write a network that gives the mean of each colour and the mean of all, for pictures of any size."""
    openvino = import_openvino()
    from openvino import opset8 as ops

    images = ops.parameter([-1, -1, -1, 3], np.uint8, name="images")
    images.output(0).set_names({"images"})
    numbers = ops.convert(images, np.float32)
    means = {"colours": ops.reduce_mean(numbers, [1, 2]), "brightness": ops.reduce_mean(numbers, [1, 2, 3])}
    for name, mean in means.items():
        mean.output(0).set_names({name})
    file = tmp_path / "colours.xml"
    openvino.save_model(openvino.Model(list(means.values()), [images]), file)
    return file


@pytest.mark.parametrize("number", [1, 2, 7, 1203])
def test_every_picture_has_its_own_answer(colours: Path, number: int) -> None:
    """Whatever the number, the rows of all outputs stand in the order of the pictures."""
    images = np.random.default_rng(0).integers(256, size=(number, 4, 6, 3), dtype=np.uint8)
    found = answers_to(colours, images)
    np.testing.assert_allclose(found["colours"], images.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["brightness"], images.mean(axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize(("side", "most"), [(32, 256), (224, 5), (1000, 1)])
def test_few_large_pictures_are_in_the_network_at_a_time(colours: Path, side: int, most: int) -> None:
    """What is asked at once has a bounded number of pixels, so that large pictures take no more memory than small."""
    answered: list[int] = []
    openvino_answer(colours, answered.append)(np.zeros((300, side, side, 3), np.uint8))
    assert sum(answered) == 300
    assert max(answered) <= most
