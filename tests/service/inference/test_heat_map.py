"""Heat maps: the box is around what is strong, and the colours lie where the numbers say, in any picture."""

import io

import numpy as np
import pytest
from PIL import Image

from service.inference.heat_map import LEAST_SIDE, MOST_SIDE, Box, HeatMap, in_sight


def heat_map(values: list[list[float]], width: int = 40, height: int = 30, area: Box | None = None) -> HeatMap:
    """Return a map of ``values`` over a picture that the model saw all of."""
    whole = Box(0, 0, width, height)
    return HeatMap(np.array(values, np.float32), area or whole, whole, width, height)


def drawn(map_: HeatMap, height: int, width: int, grey: int = 128) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the pixels of the map over a grey picture of this size."""
    content = map_.over(np.full((height, width), grey, np.uint8))
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def test_the_box_holds_what_hangs_together_with_the_strongest_cell() -> None:
    """Cells of half of the strongest count where a way of such cells leads to that; diagonally none does."""
    values = [[0.0, 9.0, 6.0, 0.0], [0.0, 0.0, 5.0, 0.0], [8.0, 0.0, 0.0, 5.0]]
    assert heat_map(values).box() == (10, 0, 30, 20)
    assert heat_map(values).box(share=0.9) == (10, 0, 20, 10)


def test_the_box_reaches_to_the_edge_of_what_was_seen() -> None:
    """Cells at the edges see what lies beyond them, however the cells lie; what was cut off is not in the box."""
    values = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32)
    cut = HeatMap(values, Box(7, 2, 31, 26), Box(5, 0, 35, 30), 40, 30)
    assert cut.box() == (5, 0, 19, 14)


def test_nothing_speaks_for_a_label() -> None:
    """Where all speaks against it there is no box, and all of the map has the lowest colour."""
    against = heat_map([[-1.0, -2.0], [0.0, -1.0]])
    assert against.box() is None
    assert len(np.unique(drawn(against, 30, 40).reshape(-1, 3), axis=0)) == 1


def test_the_colours_lie_where_the_cells_do() -> None:
    """The middle of the strongest cell is yellow, far from it is violet, and the picture is still to be seen."""
    pixels = drawn(heat_map([[0.0, 0.0, 0.0, 1.0], [0.0] * 4, [0.0] * 4]), 30, 40)
    yellow, violet = pixels[5, 35].astype(int), pixels[25, 5].astype(int)
    assert yellow[:2].min() > yellow[2] + 50
    assert violet[2] > violet[1] + 20
    brighter = drawn(heat_map([[0.0, 0.0, 0.0, 1.0], [0.0] * 4, [0.0] * 4]), 30, 40, grey=255)
    assert (brighter > pixels).all()


def test_colours_are_even_steps() -> None:
    """The heat grows evenly in brightness, as a scale for all eyes does."""
    steps = np.linspace(0, 1, 18)[np.newaxis]
    pixels = drawn(heat_map(steps.tolist(), width=18, height=1), 1, 18)[0].astype(float)
    brightness = pixels @ [0.299, 0.587, 0.114]
    assert np.diff(brightness).min() > 0
    assert np.diff(brightness).max() < 2.5 * np.diff(brightness).min()


def test_what_the_model_did_not_see_is_grey() -> None:
    """Of a wide picture whose middle the model saw, the sides have no colour."""
    middle = Box(10, 0, 40, 30)
    pixels = drawn(HeatMap(np.ones((2, 2), np.float32), middle, middle, 50, 30), 60, 100)  # at twice its size
    assert (np.ptp(pixels[:, :19], axis=2) == 0).all()
    assert (np.ptp(pixels[:, 81:], axis=2) == 0).all()
    assert (np.ptp(pixels[:, 21:79], axis=2) > 20).all()


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        pytest.param(4000, 3000, (MOST_SIDE, 480), id="large"),
        pytest.param(600, 400, (600, 400), id="as-it-is"),
        pytest.param(32, 16, (LEAST_SIDE, 128), id="small"),
        pytest.param(1, 2_000, (1, MOST_SIDE), id="thin"),
    ],
)
def test_the_picture_is_bounded(width: int, height: int, expected: tuple[int, int]) -> None:
    """A large picture is shown smaller, and one that nobody could see larger, with its sides in proportion."""
    for shape in ((height, width, 3), (height, width)):
        assert in_sight(np.zeros(shape, np.uint8)).shape == tuple(reversed(expected))
