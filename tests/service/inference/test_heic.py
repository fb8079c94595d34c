"""HEIC as iPhones write it: tiles are joined and turned once, and what is made to take long ends."""

import time

import numpy as np
import pytest
from PIL import Image

from artifact import Input
from service.inference.decoding import Decoder
from service.inference.errors import ImageTooLarge, InvalidImage
from tests.heic import grid, joined
from tests.photographs import photographs
from tests.service.pictures import encoded, plain

pytestmark = [pytest.mark.process, pytest.mark.slow]

SIZE = Input(64, 64, "stretch")


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    """A decoder with the service's own limits."""
    return Decoder(50_000_000, 1_000_000_000)


def decode(decoder: Decoder, content: bytes) -> np.ndarray:
    """Return the picture as int [64, 64, 3]."""
    return decoder.decode(content, SIZE, time.monotonic() + 20).astype(int)


@pytest.mark.parametrize("turns", range(4))
def test_tiles_are_joined_and_turned(decoder: Decoder, turns: int) -> None:
    """A photograph in tiles is the photograph, and upright as the container says it."""
    photograph = photographs()[0].resize((256, 192))
    stored = photograph.rotate(-90 * turns, expand=True)
    expected = decode(decoder, encoded(photograph))
    assert np.abs(decode(decoder, grid(stored, 64, turns)) - expected).mean() < 3


def test_the_size_of_the_whole_is_what_counts(decoder: Decoder) -> None:
    """Small tiles of a grid that is larger than pictures may be are not decoded."""
    tile = plain("red", "HEIF", size=(512, 512))
    with pytest.raises(ImageTooLarge, match="at most 50,000,000"):
        decode(decoder, joined([tile] * 15 * 15, (15, 15), 512))
    assert decode(decoder, joined([tile] * 5 * 5, (5, 5), 512)).mean(axis=(0, 1)).argmax() == 0


def test_large_tiles_that_say_that_they_are_small_have_an_end(decoder: Decoder) -> None:
    """A thousand tiles may share the bytes of one that is far larger than it says; that is found out, or ended."""
    noise = encoded(Image.effect_noise((1024, 1024), 100).convert("RGB"), "HEIF", quality=50)
    started = time.monotonic()
    with pytest.raises((InvalidImage, ImageTooLarge)):
        decode(decoder, joined([noise] * 32 * 32, (32, 32), 64))
    assert time.monotonic() - started < 15
    assert decode(decoder, plain("red", "HEIF")).mean(axis=(0, 1)).argmax() == 0
