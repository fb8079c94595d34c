"""Pictures of something else are what their names say, of any size, and the same each time."""

import numpy as np
import pytest

from training.evaluation.out_of_distribution import KINDS, draw

KNOWN = np.random.default_rng(0).integers(256, size=(5, 24, 36, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_in_the_size_of_the_known(kind: str) -> None:
    """They are as large as those that the network knows, differ from each other, and come again."""
    pictures = draw(kind, KNOWN, 4)
    assert pictures.shape == (4, 24, 36, 3)
    assert pictures.dtype == np.uint8
    assert len(np.unique(pictures.reshape(4, -1), axis=0)) == 4
    np.testing.assert_array_equal(pictures, draw(kind, KNOWN, 4))
    assert draw(kind, KNOWN[:1, :5, :3], 1).shape == (1, 5, 3, 3)


def colours(kind: str) -> list[int]:
    """Return the number of colours in some pictures of a kind."""
    return [len(np.unique(picture.reshape(-1, 3), axis=0)) for picture in draw(kind, KNOWN, 10)]


def test_made_up_pictures_are_what_they_are_called() -> None:
    """Flat pictures have one colour, stripes two, noise as many as pixels, and digits are grey."""
    assert set(colours("flat")) == {1}
    assert set(colours("stripes")) == {2}
    assert min(colours("noise")) > 0.99 * 24 * 36
    digits = draw("digits", KNOWN, 5)
    assert (digits == digits[..., :1]).all()


def test_shuffled_pictures_keep_their_tiles() -> None:
    """Each of the sixteen tiles is one of the known picture's, and not all are where they were."""
    for picture in draw("shuffled", KNOWN[:1], 3):
        tiles, known = (
            {
                image[row : row + 6, column : column + 9].tobytes()
                for row in range(0, 24, 6)
                for column in range(0, 36, 9)
            }
            for image in (picture, KNOWN[0])
        )
        assert tiles == known
        assert (picture != KNOWN[0]).any()


def test_blended_pictures_are_the_mean_of_two() -> None:
    """Of a black and a white picture the blend is grey."""
    pair = np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)])
    np.testing.assert_array_equal(draw("blended", pair, 3), 127)
