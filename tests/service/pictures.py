"""Pictures drawn for tests."""

import io
import zlib
from typing import Any

import pillow_heif
from PIL import Image

SIZE = (32, 32)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return ``image`` as the content of a file of ``kind``."""
    stream = io.BytesIO()
    if kind == "HEIF":  # pi_heif, by which it is read, has no encoder
        heif = pillow_heif.from_pillow(image)
        if "exif" in options:  # as telephones do it, an orientation is written into the container as well
            heif.info["exif"] = options.pop("exif").tobytes()
        heif.save(stream, **options)
    else:
        image.save(stream, kind, **options)
    return stream.getvalue()


def plain(colour: str, kind: str = "PNG", size: tuple[int, int] = SIZE, mode: str = "RGB", **options: Any) -> bytes:
    """Return a picture of one colour as the content of a file of ``kind``."""
    return encoded(Image.new("RGB", size, colour).convert(mode), kind, **options)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that says it has ``width`` x ``height`` pixels and holds next to none."""
    tiny = plain("red", size=(1, 1))
    start = tiny.index(b"IHDR")
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + tiny[start + 12 : start + 17]
    return tiny[:start] + header + zlib.crc32(header).to_bytes(4, "big") + tiny[start + 21 :]
