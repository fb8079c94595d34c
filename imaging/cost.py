"""How much memory decoding a picture takes, by its format and the kind of its pixels."""

from PIL import Image

# Bytes of a pixel in Pillow's modes; all others have 4, those of three colours as well.
_BYTES_OF_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_WORKING_BYTES_OF_MODE = {mode: 1 for mode in _BYTES_OF_MODE if mode.startswith("I;16")}  # the same in 8 bits
_ROW = 16  # bytes that Pillow keeps for a row beside its pixels

# Bytes of a pixel that the reader of a format takes beside Pillow's picture: planes, another copy, or the canvas of an
# animation. A test measures them.
_BYTES_OF_READER = {"WEBP": 12, "AVIF": 16, "HEIF": 12, "TIFF": 8, "GIF": 1}
_COEFFICIENT = 2  # bytes: a JPEG in several scans is held as numbers for each channel until the last one

_FIXED = 8 * 1024 * 1024  # bytes: tables, blocks, and what scaling holds between its two directions


def decoding_memory(image: Image.Image, pixels: int) -> int:
    """Return about how many bytes of memory it takes at most to decode ``image`` and bring it to a model's input.

    The size of ``image`` is the one it is decoded at, and ``pixels`` are those in its file. The file does not count.
    """
    reader = pixels * _BYTES_OF_READER.get(image.format or "", 0)
    if "progressive" in image.info:
        reader += pixels * len(image.getbands()) * _COEFFICIENT
    width, height, mode = image.width, image.height, image.mode
    decoded = height * (_ROW + width * (_BYTES_OF_MODE.get(mode, 4) + _WORKING_BYTES_OF_MODE.get(mode, 0)))
    transparent = image.has_transparency_data
    copies = (mode != ("RGBA" if transparent else "RGB")) + transparent  # one that colours are multiplied by alpha in
    return _FIXED + reader + decoded + copies * height * (_ROW + 4 * width)
