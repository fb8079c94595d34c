"""Read many pictures at once, and list those that cannot be read."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from artifact import Input
from machine import usable_cores
from training.data.dataset import Digests, Pixels
from training.data.decoding import UnreadablePicture, decode, read_content, whole
from training.data.folders import File
from training.data.hashes import HASHED_SIDE, Hashes, hash_of
from training.errors import TrainingError
from training.progress import bar

CHUNK = 16  # pictures that a thread reads at a time
_SHOWN = 5

Faults = dict[int, str]
"""What is wrong with files, by their place in the list."""


def read_all(
    files: Sequence[File], picture: Input, images: Pixels, digests: Digests, hashes: Hashes, max_unreadable: float
) -> Faults:
    """Decode ``files`` into ``images`` uint8 [N, H, W, 3], each into its place, and return the faults.

    Their sha256 go into ``digests`` uint8 [N, 32], and what tells near duplicates into ``hashes`` uint64 [N, 2, 4],
    which does not depend on ``picture``. All cores work: Pillow lets other threads run while it decodes.

    Raises:
        TrainingError: more than the share ``max_unreadable`` of the files cannot be read.
    """

    def read_chunk(begin: int) -> Faults:
        faults = {}
        for index in range(begin, min(begin + CHUNK, len(files))):
            try:
                content = read_content(files[index].path)
                images[index] = decode(content, picture)
                digests[index] = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
                hashes[index] = hash_of(whole(content, HASHED_SIDE))
            except UnreadablePicture as error:
                faults[index] = str(error)
        return faults

    faults: Faults = {}
    pool = ThreadPoolExecutor(usable_cores())
    try:
        with bar(len(files), "Reading", "picture") as shown:
            for found in pool.map(read_chunk, range(0, len(files), CHUNK)):
                faults |= found
                shown.update(CHUNK)
                require_readable(files, faults, max_unreadable)
    finally:
        pool.shutdown(cancel_futures=True)
    return faults


def require_readable(files: Sequence[File], faults: Faults, max_unreadable: float) -> None:
    """Find out, as soon as it is certain, that this is not a folder of pictures with a damaged one here and there."""
    if len(faults) <= max_unreadable * len(files):
        return
    first = "; ".join(f"{files[index].path}: {faults[index]}" for index in list(faults)[:_SHOWN])
    raise TrainingError(
        f"more than {max_unreadable:.0%} of the {len(files):,} pictures cannot be read: {first}, ...; "
        "put them right or remove them, or allow more with --max-unreadable"
    )
