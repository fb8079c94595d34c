"""Thumbnails are small, look like their pictures, and stop where a page is full."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.photographs import photographs
from training.report.thumbnails import Album


def opened(address: str) -> Image.Image:
    """Return the picture in an address."""
    head, _, content = address.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize(("size", "small"), [((640, 427), (96, 64)), ((32, 32), (32, 32)), ((10, 1000), (1, 96))])
def test_pictures_keep_their_shape(size: tuple[int, int], small: tuple[int, int]) -> None:
    """The longer side has 96 pixels at most, and none is made larger."""
    address = Album(100_000).add(np.zeros((size[1], size[0], 3), np.uint8), ())
    assert address is not None
    assert opened(address).size == small


def test_photographs_take_few_bytes_and_can_be_recognised() -> None:
    """A thumbnail of a photograph has under 6 KB, and is near to what a careful reduction gives."""
    for photograph in photographs():
        address = Album(100_000).add(np.asarray(photograph), ())
        assert address is not None
        assert len(address) < 6_000
        small = opened(address).convert("RGB")
        expected = photograph.resize(small.size, Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(small, np.float32) - np.asarray(expected, np.float32)).mean() < 8


def test_a_full_album_takes_no_more() -> None:
    """What was given and what is said of it stay within the room; then there is nothing more, however small."""
    rng = np.random.default_rng(0)
    album, given = Album(50_000), []
    while (address := album.add(rng.integers(256, size=(96, 96, 3), dtype=np.uint8), ("<" * 100,))) is not None:
        given.append(address)
    assert 3 < len(given) < 20
    assert sum(len(address) + 400 for address in given) <= 50_000
    assert album.add(np.zeros((1, 1, 3), np.uint8), ()) is None
    assert Album(0).add(np.zeros((1, 1, 3), np.uint8), ()) is None
