"""Pictures of any size become the model's input."""

import io

import numpy as np
import pytest
from PIL import Image

from artifact import Input
from imaging import decode, open_picture, to_input

SIDES = range(200, 401)


@pytest.mark.parametrize("target", [(224, 224), (260, 260), (224, 260)])
def test_the_part_that_is_cut_out_lies_within_the_picture(
    target: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For pictures of all sides from 200 to 400, it is no longer than they are, centred, and of the right shape.

    Pillow refuses a box that rounding has made longer by the smallest part of a pixel.
    """
    boxes: list[tuple[float, float, float, float]] = []
    monkeypatch.setattr(Image.Image, "resize", lambda _self, _size, _filter, *, box, **_options: boxes.append(box))
    monkeypatch.setattr(decode, "_opaque", lambda _image: np.zeros(0))
    size = Input(height=target[1], width=target[0])
    sources = [(width, height) for width in SIDES for height in SIDES if (width, height) != target]
    for source in sources:
        to_input(Image.new("RGB", source), size)
    widths, heights = np.array(sources, float).T
    left, top, right, bottom = np.array(boxes).T
    assert ((left >= 0) & (top >= 0) & (right <= widths) & (bottom <= heights)).all()
    np.testing.assert_allclose(left, widths - right, atol=1e-9)
    np.testing.assert_allclose(top, heights - bottom, atol=1e-9)
    np.testing.assert_allclose((right - left) / (bottom - top), target[0] / target[1], rtol=1e-9)
    assert (np.isclose(right - left, widths) | np.isclose(bottom - top, heights)).all(), "it could be larger"


@pytest.mark.parametrize("source", [(232, 310), (310, 232), (232, 232), (201, 399), (399, 200), (1, 400)])
@pytest.mark.parametrize("side", [224, 260])
def test_pictures_whose_sides_round_badly_are_decoded(source: tuple[int, int], side: int) -> None:
    """From a file to the input: 232x310 to 224x224 for one, whose width would be 232 and a little more."""
    file = io.BytesIO()
    Image.new("RGB", source, (200, 100, 50)).save(file, "PNG")
    pixels = to_input(open_picture(file.getvalue()), Input(side, side))
    assert pixels.shape == (side, side, 3)
    assert (pixels == (200, 100, 50)).all()
