"""Heat maps: what spoke for one label of a picture, as numbers, as a box, and as colours over the picture."""

import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from imaging import Pixels, in_shape

SHARE = 0.5  # of the largest number of a map: what is at least this is in its box
MOST_SIDE, LEAST_SIDE = 640, 256  # pixels of the longer side of a picture that a map is shown over
LEAST_SHARP_SIDE = 224  # pixels of what that picture is made of, if it has as many

# Viridis (van der Walt and Smith, 2015) at even distances: even steps look even, also to the colour-blind and in grey.
_COLOURS = np.array(
    [
        (68, 1, 84),
        (71, 45, 123),
        (59, 82, 139),
        (44, 114, 142),
        (33, 145, 140),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ],
    np.float32,
)
_COVER = 0.6  # of a pixel that its colour takes; the rest is the picture, in grey

# A PNG with a palette is written in a third of the time. It holds each heat on each grey, and greys without heat.
_HEATS, _GREYS, _UNSEEN_GREYS = 18, 12, 40
_GREY = (np.arange(256) * _GREYS // 256).astype(np.uint8)
_UNSEEN_GREY = (_HEATS * _GREYS + np.arange(256) * _UNSEEN_GREYS // 256).astype(np.uint8)


def _palette() -> list[int]:
    """Return red, green and blue of each colour of the PNG."""
    steps = np.linspace(0, 1, len(_COLOURS))
    heats = np.stack([np.interp(np.linspace(0, 1, _HEATS), steps, channel) for channel in _COLOURS.T], axis=1)
    greys, unseen = (np.linspace(0, 255, count)[:, np.newaxis] for count in (_GREYS, _UNSEEN_GREYS))
    mixed = _COVER * heats[:, np.newaxis] + (1 - _COVER) * greys  # [heats, greys, 3]
    colours = [*mixed.reshape(-1, 3), *np.broadcast_to(unseen, (_UNSEEN_GREYS, 3))]
    return [int(part) for part in np.rint(colours).ravel()]


_PALETTE = _palette()


class Box(NamedTuple):
    """A part of a picture, in its pixels."""

    left: float
    top: float
    right: float
    bottom: float


class HeatMap(NamedTuple):
    """What spoke for a label where, in a picture that is upright.

    ``values`` is float32 [h, w]: what each cell added to the label's logit, negative where it spoke against it.
    ``area`` is the part of the picture that the cells divide evenly, which may reach beyond it; ``seen`` is the part
    that the model saw. ``width`` and ``height`` are the picture's.
    """

    values: npt.NDArray[np.float32]
    area: Box
    seen: Box
    width: int
    height: int

    def box(self, share: float = SHARE) -> Box | None:
        """Return the box around the strongest cell and all that hang together with it and have ``share`` of its value.

        It is as fine as the cells are, in the pixels of the picture that the model saw. None where nothing spoke for
        the label.
        """
        highest = float(self.values.max())
        if highest <= 0:
            return None
        strong = _around_highest(self.values >= share * highest, int(self.values.argmax()))
        area, seen, (rows, columns) = self.area, self.seen, strong.shape
        down, across = np.nonzero(strong)
        top, bottom = _edges(down, rows, (area.top, area.bottom), (seen.top, seen.bottom))
        left, right = _edges(across, columns, (area.left, area.right), (seen.left, seen.right))
        return Box(left, top, right, bottom)

    def over(self, picture: Pixels) -> bytes:
        """Return a PNG of the map over ``picture``, the whole of what it is of, in grey, uint8 [H, W], at any size.

        Yellow spoke for the label most, violet not at all. What the model did not see is grey.
        """
        height, width = picture.shape
        heat = np.rint(self._at_pixels(height, width) * (_HEATS - 1)).astype(np.uint8)
        shown = _UNSEEN_GREY[picture]
        rows = _inside(height, self.height / height, self.seen.top, self.seen.bottom)
        columns = _inside(width, self.width / width, self.seen.left, self.seen.right)
        shown[rows, columns] = heat[rows, columns] * _GREYS + _GREY[picture[rows, columns]]
        image = Image.fromarray(shown, "P")
        image.putpalette(_PALETTE)
        stream = io.BytesIO()
        image.save(stream, "PNG", compress_level=1)
        return stream.getvalue()

    def _at_pixels(self, height: int, width: int) -> npt.NDArray[np.float32]:
        """Return what spoke for the label at each of so many pixels, 0 to 1, linear between the middles of cells."""
        positive = np.maximum(self.values, 0)
        shares = (positive / (positive.max() or 1)).astype(np.float32)
        in_columns = _between(shares.T, width, self.width / width, (self.area.left, self.area.right))
        return _between(in_columns.T, height, self.height / height, (self.area.top, self.area.bottom))


def in_sight(picture: Pixels) -> Pixels:
    """Return ``picture``, uint8 [H, W, 3] or [H, W], in grey, with a longer side of ``LEAST_SIDE`` to ``MOST_SIDE``."""
    height, width = picture.shape[:2]
    size = in_shape(width, height, min(max(width, height, LEAST_SIDE), MOST_SIDE))
    return np.asarray(
        Image.fromarray(picture).convert("L").resize((size.width, size.height), Image.Resampling.BILINEAR)
    )


def _around_highest(strong: npt.NDArray[np.bool_], highest: int) -> npt.NDArray[np.bool_]:
    """Return those of the ``strong`` cells, [h, w], that a way of them leads to from the cell of number ``highest``."""
    found = np.zeros_like(strong)
    found.flat[highest] = True
    while True:
        grown = found.copy()
        grown[1:] |= found[:-1]
        grown[:-1] |= found[1:]
        grown[:, 1:] |= found[:, :-1]
        grown[:, :-1] |= found[:, 1:]
        grown &= strong
        if (grown == found).all():
            return found
        found = grown


def _edges(
    counted: npt.NDArray[np.int64], cells: int, area: tuple[float, float], seen: tuple[float, float]
) -> tuple[float, float]:
    """Return where the first of those that are ``counted`` of the ``cells`` of ``area`` begins, and the last one ends.

    The cells at both ends of it see what lies beyond them as well, as far as anything was ``seen``.
    """
    first, last = int(counted.min()), int(counted.max())
    start, side = area[0], (area[1] - area[0]) / cells
    return (
        seen[0] if first == 0 else start + side * first,
        seen[1] if last == cells - 1 else start + side * (last + 1),
    )


def _inside(pixels: int, scale: float, start: float, end: float) -> slice:
    """Return which of ``pixels`` have their middle between ``start`` and ``end`` of the picture."""
    first, last = np.searchsorted(_middles(pixels, scale), (start, end))
    return slice(int(first), int(last))


def _middles(pixels: int, scale: float) -> npt.NDArray[np.float32]:
    """Return where the middles of ``pixels`` lie, of which each is ``scale`` pixels of the picture."""
    return ((np.arange(pixels) + 0.5) * scale).astype(np.float32)


def _between(
    cells: npt.NDArray[np.float32], pixels: int, scale: float, ends: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """Return what lies at each of ``pixels``, float32 [pixels, N], between the middles of ``cells``, [cells, N].

    ``ends`` is where the first cell begins and the last one ends. Multiplied by a matrix of weights it would be the
    same, but BLAS takes several threads for that, and longer, where other requests have the cores.
    """
    start, end = ends
    at = np.clip((_middles(pixels, scale) - start) / (end - start) * len(cells) - 0.5, 0, len(cells) - 1)
    before = at.astype(np.intp)
    after = np.minimum(before + 1, len(cells) - 1)
    share = (at - before).astype(np.float32)[:, np.newaxis]  # of the one after
    between: npt.NDArray[np.float32] = cells[before] * (1 - share) + cells[after] * share
    return between
