"""Tensors of images in JSON: types of exactly the model's shape, which msgspec checks while it parses."""

import functools
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from artifact import Input
from service.inference.engine import Images, Outputs
from service.inference.errors import InvalidRequest
from service.web.bodies import parse_json

_NUMBERS_AT_ONCE = 2**16

UInt8 = Annotated[int, Meta(ge=0, le=255)]
FlatType = Annotated[list[UInt8], Meta(min_length=1)]


@functools.lru_cache(maxsize=8)
def image_type(size: Input) -> Any:
    """Return the type of one image in nested lists: [height][width][3] integers from 0 to 255."""
    return _list_of(_list_of(_list_of(UInt8, 3), size.width), size.height)


@functools.lru_cache(maxsize=8)
def images_type(size: Input) -> Any:
    """Return the type of one or more images in nested lists: [N][height][width][3]."""
    return Annotated[list[image_type(size)], Meta(min_length=1)]  # type: ignore[misc]  # made at run time


def most_values(size: Input, images: int) -> int:
    """Return how many values, counted as ``parse_json`` does, ``images`` images have in nested lists."""
    return images * (size.height * (size.width * 4 + 1) + 1)


def nested_images(text: bytes | memoryview, size: Input, max_images: int, at: str) -> Images:
    """Return JSON in nested lists as uint8 [N, H, W, 3].

    Raises:
        InvalidRequest: it does not have the shape, or a value is no integer from 0 to 255; the message says where,
            below ``at``, the path of ``text`` in its document.
        TooManyItems: it has more values than ``max_images`` images have.
    """
    parsed = _parse(text, images_type(size), most_values(size, max_images) + 1, at)
    return np.array(parsed, dtype=np.uint8)


def flat_images(text: bytes | memoryview, size: Input, max_images: int, at: str) -> Images:
    """Return JSON in one flat list, in row-major order, as uint8 [N, H, W, 3]; see ``nested_images``."""
    parsed = np.array(_parse(text, FlatType, most_values(size, max_images) + 1, at), dtype=np.uint8)
    values = size.height * size.width * 3
    if len(parsed) % values:
        raise InvalidRequest(
            f"{at} has {len(parsed)} values, which is no whole number of images "
            f"of {size.height} x {size.width} x 3 = {values}."
        )
    return parsed.reshape(-1, size.height, size.width, 3)


def shortest(rows: Outputs) -> npt.NDArray[np.float64]:
    """Return ``rows``, float32 [N, columns], as those float64 that JSON shows with as few digits as tell float32 apart.

    Some rows at a time, since the text of a number takes 128 bytes on its way.
    """
    shown = np.empty(rows.shape, np.float64)
    step = max(1, _NUMBERS_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), step):
        shown[start : start + step] = rows[start : start + step].astype(np.str_)
    return shown


def _parse(text: bytes | memoryview, type_: Any, max_values: int, at: str) -> Any:
    try:
        return parse_json(text, type_, max_values)
    except InvalidRequest as error:
        message = str(error)
        told = message.replace("`$", f"`{at}") if "`$" in message else f"{at}: {message}"
        raise InvalidRequest(told) from error


def _list_of(element: Any, length: int) -> Any:
    return Annotated[list[element], Meta(min_length=length, max_length=length)]
