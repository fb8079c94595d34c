"""Hashes of pictures find copies that were changed, whatever the number of pictures."""

import io

import numpy as np
from PIL import Image, ImageOps

from artifact import Input
from tests.photographs import photographs
from training.data.decoding import decode
from training.data.hashes import HASHED_SIDE, alike, groups_of, hash_of, same


def hashed(image: Image.Image, quality: int = 95) -> np.ndarray:
    """Return the hash of a picture that is saved as a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return hash_of(decode(file.getvalue(), Input(HASHED_SIDE, HASHED_SIDE, "stretch")))


def test_copies_are_alike_and_others_are_not() -> None:
    """Smaller, compressed anew or mirrored it stays the same; three photographs are three."""
    images = photographs()
    changed = [images[0].resize((200, 133)), ImageOps.mirror(images[1]), images[2]]
    hashes = np.stack([*map(hashed, images), hashed(changed[0]), hashed(changed[1]), hashed(changed[2], quality=20)])
    assert sorted(alike(hashes).tolist()) == [[0, 3], [1, 4], [2, 5]]


def test_pictures_that_show_nothing_are_alike_in_the_same_colour_only() -> None:
    """They have no frequencies to go by, and noise in place of those would make one group of all."""
    colours = [(90, 90, 90), (91, 91, 91), (200, 0, 0), (90, 90, 90)]
    hashes = np.stack([hash_of(np.full((HASHED_SIDE, HASHED_SIDE, 3), colour, np.uint8)) for colour in colours])
    assert alike(hashes).tolist() == [[0, 3]]


def test_blocks_do_not_matter() -> None:
    """Pairs are found within a block and across blocks, each once, the smaller place first."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(2**63, size=(1500, 2, 4), dtype=np.uint64)
    for one, other in ((3, 5), (10, 1400), (700, 600)):
        hashes[other, 0] = hashes[one, 0]
    hashes[1499, 1] = hashes[20, 0]  # mirrored
    assert sorted(alike(hashes).tolist()) == [[3, 5], [10, 1400], [20, 1499], [600, 700]]


def test_groups_are_joined_by_others() -> None:
    """Two pictures that are like a third one belong together."""
    groups = groups_of(np.array([[0, 2], [2, 4]]), 5)
    assert groups[0] == groups[2] == groups[4]
    assert len(set(groups.tolist())) == 3


def test_equal_digests_are_pairs_with_the_first() -> None:
    """Three of a kind are two pairs."""
    assert same([b"a", b"b", b"a", b"a"]).tolist() == [[0, 2], [0, 3]]
    assert same([]).shape == (0, 2)
