"""Look at every picture of a folder once, and keep of each what the checks go by; its pixels are not kept."""

import functools
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import laplace

from artifact import Input
from machine import usable_cores
from training.check.alignment import SIDE
from training.data.dataset import Classes, Pixels
from training.data.decoding import UnreadablePicture, grey, inspect, read_content
from training.data.folders import File, Found, classes_of
from training.data.hashes import Hashes, hash_of
from training.errors import TrainingError
from training.fit.features import Embed, Features, Vectors
from training.network.registry import BACKBONES, DEFAULT, IMAGENET_WEIGHTS
from training.progress import bar

_AT_ONCE = 1000  # pictures whose pixels are in memory, 203 MB
_DARK_END, _BRIGHT_END = 5, 95  # percentiles of the brightness

Role = str
"""The split that a picture is in: ``train``, ``validation`` or ``test``; all are ``train`` where none is given."""


@dataclass(frozen=True)
class Facts:
    """What is measured of one picture.

    ``content`` is the sha256 of its file and ``pixels`` a digest of what it shows. ``format`` is Pillow's word;
    ``width`` and ``height`` are its own pixels. ``darkest`` and ``brightest`` are percentiles 5 and 95 of its
    brightness, 0 to 255, and ``sharpness`` is the variance of its Laplacian, both in the size that a network takes.
    """

    content: bytes
    pixels: bytes
    format: str
    width: int
    height: int
    darkest: float
    brightest: float
    sharpness: float


@dataclass(frozen=True)
class Pictures:
    """The N readable pictures of a folder, in the order of ``files``.

    ``classes`` int64 [N] are places in ``labels``, or where pictures may have several, int64 [N, labels] of 0 and 1;
    ``features`` float32 [N, D] are those of the pretrained network;
    ``copies`` uint8 [N, SIDE, SIDE] are small grey ones, and ``hashes`` are of these. ``faults`` says what is wrong
    with the files that cannot be read.
    """

    labels: tuple[str, ...]
    files: list[File]
    roles: list[Role]
    classes: Classes
    facts: list[Facts]
    features: Vectors
    copies: Pixels
    hashes: Hashes
    faults: dict[File, str]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def multi_label(self) -> bool:
        """Whether a picture may have several labels, or none."""
        return self.classes.ndim == 2


def look(found: Found, features: Features, side: int) -> Pictures:
    """Read all pictures that were ``found``, and what the network makes of them in ``side`` pixels each way.

    Raises:
        TrainingError: none of them can be read.
        OSError: the file of the features cannot be written.
    """
    parts = {"train": found.train, "validation": found.validation or [], "test": found.test or []}
    files = [(file, role) for role, part in parts.items() for file in part]
    kept: list[tuple[File, Role]] = []
    faults: dict[File, str] = {}
    facts: list[Facts] = []
    vectors: list[Vectors] = []
    copies: list[Pixels] = []
    hashes: list[Hashes] = []
    with ThreadPoolExecutor(usable_cores()) as pool, bar(len(files), "Looking at them", "picture") as shown:
        for begin in range(0, len(files), _AT_ONCE):
            chunk = files[begin : begin + _AT_ONCE]
            images = np.empty((len(chunk), side, side, 3), np.uint8)
            seen = list(pool.map(functools.partial(_see, side), (file for file, _ in chunk), images))
            good = [place for place, result in enumerate(seen) if not isinstance(result, str)]
            faults |= {chunk[place][0]: result for place, result in enumerate(seen) if isinstance(result, str)}
            kept += [chunk[place] for place in good]
            for result in seen:
                if not isinstance(result, str):
                    facts.append(result[0])
                    copies.append(result[1])
                    hashes.append(result[2])
            if good:
                vectors.append(features.of(images[good], quiet=True))
            shown.update(len(chunk))
    if not kept:
        raise TrainingError(f"none of the {len(files):,} pictures can be read: {_first(faults)}")
    readable = [file for file, _ in kept]
    return Pictures(
        labels=found.labels,
        files=readable,
        roles=[role for _, role in kept],
        classes=classes_of(readable, found.labels),
        facts=facts,
        features=np.concatenate(vectors),
        copies=np.stack(copies),
        hashes=np.stack(hashes),
        faults=faults,
    )


def network() -> Embed:
    """Return what gives the features of photographs, by the pretrained network; Keras has to be imported before."""
    from training.fit.features import embedder
    from training.network.backbone import build_on_backbone

    side = BACKBONES[DEFAULT].side
    return embedder(build_on_backbone((side, side, 3), 2, DEFAULT, IMAGENET_WEIGHTS, seed=0))


def _see(side: int, file: File, image: Pixels) -> tuple[Facts, Pixels, Hashes] | str:
    """Decode ``file`` into ``image`` uint8 [side, side, 3]; return its facts, small copy and hash, or what is wrong."""
    try:
        content = read_content(file.path)
        seen = inspect(content, Input(side, side), Input(SIDE, SIDE, "stretch"))
    except UnreadablePicture as error:
        return str(error)
    image[:], whole = seen.views
    levels = grey(image)
    darkest, brightest = np.percentile(levels, (_DARK_END, _BRIGHT_END)).tolist()
    shown = hashlib.blake2b(b"%d x %d" % (seen.width, seen.height), digest_size=16)
    shown.update(np.ascontiguousarray(image).data)
    shown.update(np.ascontiguousarray(whole).data)
    facts = Facts(
        content=hashlib.sha256(content).digest(),
        pixels=shown.digest(),
        format=seen.format,
        width=seen.width,
        height=seen.height,
        darkest=darkest,
        brightest=brightest,
        sharpness=float(laplace(levels.astype(np.float32)).var()),
    )
    return facts, grey(whole), hash_of(whole)


def _first(faults: dict[File, str]) -> str:
    return "; ".join(f"{file.path}: {fault}" for file, fault in list(faults.items())[:3])
