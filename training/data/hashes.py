"""Perceptual hashes: pictures that look alike have nearly the same, however they were resized or compressed anew.

They are those of the library ImageHash (``phash``): the signs of the lowest frequencies of a small grey copy. A copy
that is cropped has another one.
"""

import hashlib
from collections.abc import Iterator, Sequence

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from training.data.dataset import Pixels
from training.data.decoding import grey

Hashes = NDArray[np.uint64]
"""The hash of each picture and that of its mirror image, uint64 [N, 2, 4]."""
Pairs = NDArray[np.int64]
"""Pairs of pictures by their places, the smaller one first, int64 [M, 2]."""
Groups = NDArray[np.int64]
"""The number of the group that each picture is in, int64 [N]; most are alone in theirs."""

HASHED_SIDE = 128
"""Pixels each way of the small copy that is hashed."""
WORDS = 4
_SIDE = 16  # frequencies in each direction: 64 of them do not tell products on white ground apart
ALIKE = 28
"""Bits of 256 in which the hashes of one picture may differ; docs/check.md says what was measured."""
_FLAT = 1.0  # levels
_BLOCK = 512  # pictures that are compared with all others at a time


def hash_of(pixels: Pixels) -> Hashes:
    """Return the hash of the whole picture ``pixels`` uint8 [H, W, 3], and that of its mirror image; uint64 [2, 4].

    One that shows nothing has no frequencies; its hash is like that of the very same pixels alone.
    """
    levels = grey(pixels)
    if levels.std() < _FLAT:
        return np.stack(
            [np.frombuffer(hashlib.blake2b(pixels.tobytes(), digest_size=8 * WORDS).digest(), np.uint64)] * 2
        )
    return np.stack([_bits(levels), _bits(levels[:, ::-1])])


def _bits(levels: Pixels) -> Hashes:
    found = imagehash.phash(Image.fromarray(np.ascontiguousarray(levels)), hash_size=_SIDE)
    return np.packbits(found.hash.reshape(-1)).view(np.uint64)


def alike(hashes: Hashes, most: int = ALIKE) -> Pairs:
    """Return the pairs of pictures whose hashes differ in at most ``most`` bits, also where one is mirrored.

    All are compared with all, a block at a time, so that memory grows with the number of pictures and not its square.
    """
    pairs = [np.empty((0, 2), np.int64), *_blocks(hashes, most)]
    return np.concatenate(pairs)


def _blocks(hashes: Hashes, most: int) -> Iterator[Pairs]:
    for begin in range(0, len(hashes), _BLOCK):
        block = hashes[begin : begin + _BLOCK, 0]
        rest = hashes[begin:]
        distance = np.full((len(block), len(rest)), 64 * WORDS, np.uint16)
        for side in range(2):
            bits = np.zeros(distance.shape, np.uint16)
            for word in range(WORDS):
                bits += np.bitwise_count(block[:, None, word] ^ rest[None, :, side, word])
            distance = np.minimum(distance, bits)
        first, second = np.nonzero(np.triu(distance <= most, 1))
        yield np.stack([first + begin, second + begin], axis=1)


def groups_of(pairs: Pairs, number: int) -> Groups:
    """Return which of ``number`` pictures belong together, directly or by others, given those that do in pairs."""
    edges = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(number, number))
    groups: Groups = connected_components(edges, directed=False)[1].astype(np.int64)
    return groups


def same(digests: Sequence[bytes]) -> Pairs:
    """Return the pairs of equal ``digests``, each with the first one of its kind."""
    first: dict[bytes, int] = {}
    pairs = [(seen, place) for place, digest in enumerate(digests) if (seen := first.setdefault(digest, place)) < place]
    return np.array(pairs, np.int64).reshape(-1, 2)
