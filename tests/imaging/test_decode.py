"""Pictures of any size become the model's input."""

import io

import numpy as np
import pytest
from PIL import Image

from artifact import Input
from imaging import decode, open_picture, to_input, to_input_and_view, whole

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
    monkeypatch.setattr(decode, "_opaque", lambda _image, _mode: np.zeros(0))
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


@pytest.mark.parametrize(
    ("source", "orientation", "shown"),
    [
        ((400, 100), 1, (64, 16)),
        ((400, 100), 6, (16, 64)),
        ((100, 400), 1, (16, 64)),
        ((64, 20), 1, (64, 20)),
        ((9, 3), 8, (3, 9)),
        ((3000, 1), 1, (64, 1)),
    ],
)
def test_all_of_a_picture_is_shown_in_its_shape(
    source: tuple[int, int], orientation: int, shown: tuple[int, int]
) -> None:
    """Upright, no side longer than is asked for, and none enlarged."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", source, (200, 100, 50)).save(file, "PNG", exif=exif)
    image = open_picture(file.getvalue())
    size = whole(image, 64)
    assert (size.width, size.height) == shown
    pixels = to_input(image, size)
    assert pixels.shape == (size.height, size.width, 3)
    assert (pixels == (200, 100, 50)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_the_view_changes_nothing_of_the_input(kind: str, orientation: int) -> None:
    """One decoding gives the same input as without, and all of the picture, upright, bounded, and never enlarged."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(colours).resize((900, 600)).save(file, kind, exif=exif)
    size = Input(40, 32)
    pixels, view = to_input_and_view(open_picture(file.getvalue()), size, 300)
    np.testing.assert_array_equal(pixels, to_input(open_picture(file.getvalue()), size))
    wide = orientation == 1
    shape = (150, 225) if kind == "JPEG" else (200, 300)  # a JPEG is decoded at a quarter
    assert view.shape == (shape if wide else tuple(reversed(shape)))
    expected = to_input(open_picture(file.getvalue()), whole(open_picture(file.getvalue()), 300))
    small = Input(15, 22) if wide else Input(22, 15)
    grey = Image.fromarray(expected).convert("L")
    both = [to_input(each, small).astype(int) for each in (Image.fromarray(view), grey)]
    assert np.abs(both[0] - both[1]).mean() < 8
