"""Decode a picture's file just as the service does, or say in words why it cannot be."""

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from artifact import Input
from imaging import (
    FORMATS,
    DamagedPicture,
    FarTooManyPixels,
    Pixels,
    TooMuchWork,
    UnknownFormat,
    UnknownRange,
    open_picture,
    to_input,
    upright_size,
)

MAX_PIXELS = 100_000_000
NEARLY_BLACK = (
    "Most pictures are nearly black, and so a network sees nearly nothing of them. Levels of 16 bits count up to "
    "65,535: where a device has 10 or 12 bits, as of X-rays, multiply them first, for training and for the service."
)
"""What is said of a folder of such pictures."""
_MAX_BYTES = 1024**3
_BEGIN = 256  # bytes that are looked at to tell what is no picture
_RUN_PROGRAMS = ("EPS",)  # Pillow hands them to Ghostscript


class UnreadablePicture(Exception):
    """A file is not a picture that can be decoded; the message says why."""


def read(path: Path, picture: Input) -> Pixels:
    """Return the picture in file ``path`` as uint8 [H, W, 3], brought to the size of ``picture`` by its rule.

    Raises:
        UnreadablePicture: there is no such file, it cannot be read, or ``decode`` cannot decode it.
    """
    return decode(read_content(path), picture)


def whole(content: bytes, side: int) -> Pixels:
    """Return the whole picture in the bytes of a file, stretched to ``side`` pixels each way; uint8 [side, side, 3].

    It does not depend on what the picture is decoded to otherwise, so that two sizes of a data set agree on it.

    Raises:
        UnreadablePicture: as ``decode``.
    """
    return decode(content, Input(side, side, "stretch"))


def grey(pixels: Pixels) -> Pixels:
    """Return ``pixels`` uint8 [H, W, 3] in grey, uint8 [H, W]."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def read_content(path: Path) -> bytes:
    """Return the bytes of file ``path``.

    Raises:
        UnreadablePicture: there is no such file, it is too large for a picture, or it cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise UnreadablePicture(f"{size:,} bytes are too many")
        return path.read_bytes()
    except OSError as error:
        raise UnreadablePicture(error.strerror or str(error)) from error


def decode(content: bytes, picture: Input) -> Pixels:
    """Return the picture in the bytes of a file as uint8 [H, W, 3], brought to the size of ``picture`` by its rule.

    What the service reads, it decodes to the same pixels; all else that Pillow knows is read as well, except formats
    for which it would run another program.

    Raises:
        UnreadablePicture: the content is no picture, is damaged or cut short, or has more than ``MAX_PIXELS``.
    """
    return inspect(content, picture).views[0]


@dataclass(frozen=True)
class Inspected:
    """A decoded picture and what its file is.

    ``views`` are the picture in the sizes that were asked for, uint8 [H, W, 3] each. ``format`` is Pillow's word for
    the file's; ``width`` and ``height`` are its own pixels, once it is upright.
    """

    views: tuple[Pixels, ...]
    format: str
    width: int
    height: int


def inspect(content: bytes, *pictures: Input) -> Inspected:
    """Decode a picture once, bring it to the sizes of ``pictures`` as ``decode`` does, and say what its file is.

    The first one decides on the scale at which a JPEG is decoded, so it has to be the largest.

    Raises:
        UnreadablePicture: as ``decode``.
    """
    if not content:
        raise UnreadablePicture("the file is empty")
    _limit_pillow()
    try:
        image = _open(content)
        width, height = upright_size(image)
        if width * height > MAX_PIXELS:
            raise UnreadablePicture(f"{width} x {height} pixels are too many")
        return Inspected(tuple(to_input(image, picture) for picture in pictures), image.format or "", width, height)
    except MemoryError as error:
        raise UnreadablePicture("it does not fit into memory") from error
    except UnknownFormat as error:
        raise UnreadablePicture(_what_it_is(content)) from error
    except (UnknownRange, TooMuchWork) as error:
        raise UnreadablePicture(str(error).removesuffix(".")) from error  # it stands in a list
    except FarTooManyPixels as error:
        raise UnreadablePicture("it has far too many pixels") from error
    except DamagedPicture as error:
        raise UnreadablePicture(f"damaged or cut short ({error})") from error


def shorter_side(path: Path) -> int | None:
    """Return the pixels of the shorter side of the picture in file ``path``; None where its header cannot be read."""
    _limit_pillow()
    try:
        with Image.open(path, formats=(*FORMATS, *_other_formats())) as image:
            return min(image.size)
    except Exception:  # noqa: BLE001 - whatever is wrong with it is told when its pixels are read
        return None


def _limit_pillow() -> None:
    """Let Pillow refuse by itself what has more than twice ``MAX_PIXELS``, wherever in a file it meets such a size."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    _keep_pillow_quiet()


@functools.cache
def _keep_pillow_quiet() -> None:
    """Let Pillow not warn of damaged metadata and the like; what makes a picture unreadable is an exception."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _open(content: bytes) -> Image.Image:
    try:
        return open_picture(content)
    except UnknownFormat:
        return open_picture(content, _other_formats())


def _what_it_is(content: bytes) -> str:
    """Return in words what is known of content that no reader knows."""
    if content[128:132] == b"DICM":
        return "it is a DICOM file, which is not read; save it as PNG"
    if content.startswith(b"%PDF-"):
        return "it is a PDF, which is not read; save its pictures as PNG or JPEG"
    begin = content[:_BEGIN].lstrip().lower()
    if begin.startswith((b"<!doctype html", b"<html")):
        return "it is a web page, such as a server sends in place of a picture"
    return "it is not a picture, or its beginning is damaged"


@functools.cache
def _other_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that training reads and the service does not."""
    Image.init()
    return tuple(kind for kind in Image.OPEN if kind not in (*FORMATS, *_RUN_PROGRAMS))
