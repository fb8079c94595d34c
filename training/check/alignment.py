"""Whether one picture is another one, or a part of it, by laying small copies one over the other.

The embeddings of two photographs of one flower may be as near as those of a photograph and its crop. Their pixels are
not: normalised cross-correlation of the fine structure (Lewis, "Fast Normalized Cross-Correlation", 1995), at its best
over all places, several sizes, and mirrored, tells them apart. It is sought in copies of 64 pixels, and where it is
high there, measured in copies of twice that: two pairs of trousers on a white ground have nearly the same outline, but
not the same folds.
"""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from machine import usable_cores
from training.data.dataset import Pixels
from training.data.hashes import HASHED_SIDE, Pairs

SIDE = HASHED_SIDE
"""Pixels of the small copies each way."""
_REDUCED = 2  # times, for the search
_SCALES = (1.0, 0.95, 0.9, 0.86, 0.82, 0.78, 0.74, 0.7)  # sides of a part, of those of the whole
_NEARBY = (-0.06, -0.04, -0.02, 0.0, 0.02, 0.04, 0.06)  # what a part's width and height may differ by from that
_PROMISING = 0.55  # of the search
_COARSE = 3.0  # pixels: what is broader is left out, since a light background is alike in many pictures
_FLAT = 1.0  # levels: with less structure than that there is nothing to compare

_Fine = NDArray[np.float32]
_Spectra = NDArray[np.complex64]


class _Fit(NamedTuple):
    likeness: float
    scale: float
    mirrored: bool


class _Template(NamedTuple):
    """A part in some size, ``height`` and ``width`` pixels; ``spectrum`` [S, S // 2 + 1] has it in a corner."""

    spectrum: _Spectra
    height: int
    width: int
    scale: float
    mirrored: bool


def likenesses(copies: Pixels, pairs: Pairs) -> NDArray[np.float32]:
    """Return how well the pictures of each pair fit, float32 [M]: 1 for the same, far less for others.

    ``copies`` uint8 [N, SIDE, SIDE] are whole pictures in grey, stretched. One of two may be a part of the other, of
    about 0.7 of its height and width at least, and mirrored.
    """
    partners: defaultdict[int, list[int]] = defaultdict(list)
    for place, (first, second) in enumerate(pairs.tolist()):
        partners[first].append(place)
        partners[second].append(place)

    def of_part(part: int) -> list[float]:
        small = _fine(_reduced(copies[part]))
        templates = [_template(small, scale, scale, mirrored, scale) for scale in _SCALES for mirrored in (False, True)]
        others = (copies[_other(pairs[place], part)] for place in partners[part])
        return [_likeness(copies[part], other, templates) for other in others]

    found = np.full(len(pairs), -1.0, np.float32)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for part, values in zip(partners, pool.map(of_part, partners), strict=True):
            places = partners[part]
            found[places] = np.maximum(found[places], values)
    return found


def _other(pair: NDArray[np.int64], one: int) -> int:
    return int(pair[1] if pair[0] == one else pair[0])


def _likeness(part: Pixels, whole: Pixels, templates: list[_Template]) -> float:
    """Return how well ``part`` lies in ``whole``; ``templates`` are it in all sizes of the search."""
    found = _best(_fine(_reduced(whole)), templates)
    if found.likeness < _PROMISING:
        return found.likeness
    fine = _fine(part)
    nearby = [
        _template(fine, min(found.scale + down, 1.0), min(found.scale + across, 1.0), found.mirrored, found.scale)
        for down in _NEARBY
        for across in _NEARBY
        if max(found.scale + down, found.scale + across) < 1 + _NEARBY[-1] / 2
    ]
    return _best(_fine(whole), nearby).likeness


def _reduced(grey: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(grey).reduce(_REDUCED))


def _fine(grey: Pixels) -> _Fine:
    levels = grey.astype(np.float32)
    fine: _Fine = levels - gaussian_filter(levels, _COARSE, mode="reflect")
    return fine


def _template(fine: _Fine, down: float, across: float, mirrored: bool, scale: float) -> _Template:
    """Return the part ``fine`` float32 [S, S] in ``down`` of its height and ``across`` of its width."""
    height, width = round(down * len(fine)), round(across * len(fine))
    part = np.asarray(Image.fromarray(fine).resize((width, height), Image.Resampling.BICUBIC))
    part = part[:, ::-1] if mirrored else part
    part = part - part.mean()
    placed = np.zeros_like(fine)
    placed[:height, :width] = part / max(float(np.linalg.norm(part)), _FLAT * np.sqrt(height * width))
    return _Template(np.conj(scipy.fft.rfft2(placed)), height, width, scale, mirrored)


def _best(fine: _Fine, templates: list[_Template]) -> _Fit:
    """Return the best fit of one of the ``templates`` anywhere in the picture that ``fine`` is of."""
    spectra = np.stack([template.spectrum for template in templates])
    correlations = scipy.fft.irfft2(scipy.fft.rfft2(fine) * spectra, s=fine.shape)
    sums, squares = (_integral(values) for values in (fine, fine**2))
    best, norms_of = _Fit(-1.0, 1.0, mirrored=False), {}
    for template, found in zip(templates, correlations, strict=True):
        size = height, width = template.height, template.width
        if size not in norms_of:  # the mirrored one has the same
            variance = _in_boxes(squares, *size) - _in_boxes(sums, *size) ** 2 / (height * width)
            norms_of[size] = np.sqrt(np.maximum(variance, _FLAT**2 * height * width))
        norms = norms_of[size]
        places = found[: len(norms), : norms.shape[1]]  # beyond, the part would lie half outside
        likeness = float((places / norms).max())
        if likeness > best.likeness:
            best = _Fit(likeness, template.scale, template.mirrored)
    return best


def _integral(values: _Fine) -> NDArray[np.float64]:
    return np.pad(values.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)


def _in_boxes(integral: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Return the sums over each box of this size, of an integral image [S + 1, S + 1]."""
    lower, upper = integral[height:], integral[:-height]
    return lower[:, width:] - lower[:, :-width] - upper[:, width:] + upper[:, :-width]
