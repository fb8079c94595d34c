"""A picture's file to the model's input, by Pillow: upright, opaque, RGB, scaled by the rule of the metadata."""

import contextlib
import io

import numpy as np
import numpy.typing as npt
from pi_heif import register_heif_opener

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
from imaging.cost import decoding_memory
from imaging.errors import DamagedPicture, UnknownFormat, UnknownRange, classified
from imaging.metadata import with_metadata_first, without_metadata
from imaging.structure import Plain, check_scans

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")

# HEIC, as iPhones take photographs. What else a file holds, such as a map of depths, is not looked at. libheif turns a
# picture by the container's own word, so that Exif's orientation, which repeats it, counts no more: pi_heif resets it.
register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)

_SIXTEEN_BITS = ("PPM",)  # whose mode I holds levels from 0 to 65,535, whatever the file's largest one is
_NUMBERS_AT_ONCE = 1024 * 1024  # that are scaled to 8 bits

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


def open_picture(content: bytes, formats: tuple[str, ...] = FORMATS, known: Plain | None = None) -> Image.Image:
    """Return the picture in the bytes of a file, in one of ``formats``; its header is read, and no pixels yet.

    ``known`` is what its structure shows, where the caller has looked. Metadata that are damaged or too large do not
    make a picture unreadable; then they are left out.

    Raises:
        UndecodablePicture: there is none, its header is damaged, or it is made to take long.
    """
    content = with_metadata_first(content)
    try:
        image = _open(content, formats)
    except (UnknownFormat, DamagedPicture):
        found = _open_without_metadata(content, formats)
        if found is None:
            raise
        image = found
    if known is None and image.format in ("JPEG", "MPO"):
        check_scans(content, image.width * image.height)
    return image


def _open(content: bytes, formats: tuple[str, ...]) -> Image.Image:
    with classified():
        return Image.open(io.BytesIO(content), formats=formats)


def _open_without_metadata(content: bytes, formats: tuple[str, ...]) -> Image.Image | None:
    for keep_exif in (True, False):  # it may be what is damaged
        pixels = without_metadata(content, keep_exif=keep_exif)
        with contextlib.suppress(UnknownFormat, DamagedPicture):
            if pixels is not None:
                return _open(pixels, formats)
    return None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the width and height that ``image`` has when it is upright; to be asked before its pixels are read."""
    width, height = image.size
    return (height, width) if _orientation(image) in _SIDEWAYS else (width, height)


def whole(image: Image.Image, side: int) -> Input:
    """Return the input that shows all of ``image`` in its shape, no side longer than ``side`` pixels and none enlarged.

    To be asked before its pixels are read.
    """
    width, height = upright_size(image)
    return in_shape(width, height, min(side, max(width, height)))


def in_shape(width: int, height: int, side: int) -> Input:
    """Return the input of longer side ``side`` that shows all of an upright picture of ``width`` x ``height``."""
    scale = side / max(width, height)
    return Input(max(1, round(height * scale)), max(1, round(width * scale)), "stretch")


def prepare(image: Image.Image, size: Input) -> int:
    """Choose the scale at which ``image`` is decoded for ``size``; return how many bytes of memory that takes at most.

    ``to_input`` does the same by itself.
    """
    pixels = image.width * image.height
    with classified():
        _reduce(image, size)
    return decoding_memory(image, pixels)


def to_input(image: Image.Image, size: Input) -> Pixels:
    """Decode ``image`` and bring it to ``size``; uint8 [H, W, 3].

    Raises:
        UndecodablePicture: it is damaged, cut short, or of a kind that cannot be shown.
    """
    with classified():
        return _brought_to(size, *_decoded(image, size))


def to_input_and_view(image: Image.Image, size: Input, side: int) -> tuple[Pixels, Pixels]:
    """Return the same, and all of the picture in grey, uint8 [h, w], with no side longer than ``side`` pixels.

    That is as sharp as what was decoded for the input, so that a picture is decoded once. It raises the same.
    """
    with classified():
        decoded, orientation = _decoded(image, size)
        width, height = reversed(decoded.size) if orientation in _SIDEWAYS else decoded.size
        view = in_shape(width, height, min(side, max(width, height)))
        pixels = _brought_to(size, decoded, orientation)
        grey = decoded.convert("L") if decoded.mode == "RGB" else decoded  # first, which is a third of the work
        return pixels, _brought_to(view, grey, orientation, "L")


def part_seen(width: int, height: int, size: Input) -> tuple[float, float, float, float]:
    """Return which part of an upright picture of ``width`` and ``height`` a model's input of ``size`` shows.

    It is left, top, right and bottom, in pixels of the picture.
    """
    if size.resize == "crop":
        return _centre((width, height), (size.width, size.height))
    return 0.0, 0.0, float(width), float(height)


def _decoded(image: Image.Image, size: Input) -> tuple[Image.Image, int]:
    """Return the picture in mode RGB or RGBA, as large as ``size`` needs it, and the orientation that it has."""
    _reduce(image, size)
    image.load()
    return _eight_bit(image), _orientation(image)


def _brought_to(size: Input, image: Image.Image, orientation: int, mode: str = "RGB") -> Pixels:
    """Return ``image`` of this ``orientation`` scaled to ``size``, upright and opaque; uint8 [H, W, 3], or [H, W]."""
    target = (size.height, size.width) if orientation in _SIDEWAYS else (size.width, size.height)
    fitted = _fit(image, target, size)
    if orientation in _TRANSPOSITIONS:
        fitted = fitted.transpose(_TRANSPOSITIONS[orientation])
    return np.asarray(_opaque(fitted, mode), dtype=np.uint8)


def _reduce(image: Image.Image, size: Input) -> None:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 scale, which is half the work for a picture from a camera.

    Twice the target keeps the filter's result as good as the eye can tell; the longer side because the picture may lie
    on its side. Another time changes nothing.
    """
    side = 2 * max(size.width, size.height)
    image.draft(None, (side, side))


def _orientation(image: Image.Image) -> int:
    """Return how ``image`` lies, by what is known as soon as it is open."""
    if image.format == "TIFF":  # Pillow tells its size as it will be, and turns it itself, while it loads it
        return 1
    try:
        # That of PngImageFile would decode the pixels to see what stands behind them, which ``open_picture`` has moved.
        return int(Image.Image.getexif(image).get(_ORIENTATION_TAG, 1))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - broken EXIF data does not make the picture unreadable
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return ``image`` in mode RGB or RGBA."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS):
        image = Image.fromarray(_scaled_to_eight_bit(image))
    elif image.mode in ("I", "F"):
        raise UnknownRange(
            "Pictures with 32 bits a channel, or with a sign, have no fixed range; save it with 8 or 16 bits."
        )
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)  # which would copy it


def _scaled_to_eight_bit(image: Image.Image) -> Pixels:
    """Return levels from 0 to 65,535 as 0 to 255; Pillow's own conversion clips at 255. uint8 [H, W]."""
    levels = np.asarray(image)
    scaled = np.empty(levels.shape, np.uint8)
    rows = max(1, _NUMBERS_AT_ONCE // levels.shape[1])
    for start in range(0, len(levels), rows):
        block = levels[start : start + rows].astype(np.uint32)
        scaled[start : start + rows] = (block * 255 + 32767) // 65535
    return scaled


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


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert(mode)
