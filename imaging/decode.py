"""A picture's file to the model's input, by Pillow: upright, opaque, RGB, scaled by the rule of the metadata."""

import io

import numpy as np
import numpy.typing as npt

# Each import registers one format: Pillow knows dozens, some of which run other programs (EPS) or are rarely fuzzed.
# JPEG includes MPO, the several pictures in one file that many phones write.
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from artifact import Input
from imaging.errors import UnknownRange, classified

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# EXIF orientation -> the transposition that undoes it (Exif 2.3, tag 0x0112).
_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


def open_picture(content: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Return the picture in the bytes of a file, in one of ``formats``; its header is read, and no pixels yet.

    Raises:
        UndecodablePicture: there is none, or its header is damaged.
    """
    with classified():
        return Image.open(io.BytesIO(content), formats=formats)


def to_input(image: Image.Image, size: Input) -> Pixels:
    """Decode ``image`` and bring it to ``size``; uint8 [H, W, 3].

    Raises:
        UndecodablePicture: it is damaged, cut short, or of a kind that cannot be shown.
    """
    with classified():
        return _to_input(image, size)


def _to_input(image: Image.Image, size: Input) -> Pixels:
    target = (size.width, size.height)
    # Half the work for a picture from a camera: libjpeg decodes at 1/2, 1/4 or 1/8 scale. Twice the target keeps the
    # filter's result as good as the eye can tell; the longer side because the picture may lie on its side.
    image.draft(None, (2 * max(target), 2 * max(target)))
    image.load()
    orientation = _orientation(image)  # only now, since Pillow turns a TIFF itself while it loads it
    if orientation in _SIDEWAYS:
        target = (size.height, size.width)
    fitted = _fit(_eight_bit(image), target, size)
    if orientation in _TRANSPOSITIONS:
        fitted = fitted.transpose(_TRANSPOSITIONS[orientation])
    return np.asarray(_opaque(fitted), dtype=np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - broken EXIF data does not make the picture unreadable
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return ``image`` in mode RGB or RGBA."""
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint32)  # Pillow's own conversion clips at 255 instead of scaling
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UnknownRange("Pictures with 32 bits a channel have no fixed range; save it with 8 or 16 bits.")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)  # which would copy it


def _fit(image: Image.Image, target: tuple[int, int], size: Input) -> Image.Image:
    """Scale ``image`` to ``target`` (width, height) by the rule of ``size``."""
    if image.size == target:
        return image
    box = _centre(image.size, target) if size.resize == "crop" else None
    return image.resize(target, _FILTERS[size.interpolation], box=box, reducing_gap=3.0)


def _centre(source: tuple[int, int], target: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the largest centred box of ``source`` that has the aspect ratio of ``target``, in pixels."""
    scale = min(source[0] / target[0], source[1] / target[1])
    # Rounding may make a side a little longer than it is, at 232 to 224 for one, and Pillow takes no box beyond it.
    width, height = min(target[0] * scale, source[0]), min(target[1] * scale, source[1])
    left, top = (source[0] - width) / 2, (source[1] - height) / 2
    return left, top, min(left + width, source[0]), min(top + height, source[1])


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
