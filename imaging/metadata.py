"""A picture's file without what is no part of the picture, for pixels that are good where the metadata are not."""

from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_EXIF_CHUNK = b"eXIf"
_LATE_CHUNKS = (_EXIF_CHUNK, b"iTXt", b"zTXt", b"tEXt")  # may say how the picture lies, and stand behind its pixels

_JPEG = b"\xff\xd8\xff"
_METADATA_SEGMENTS = (*range(0xE0, 0xF0), 0xFE)  # of applications, and comments
_ADOBE, _ADOBE_BYTES = b"\xff\xee", 12  # says how colours are stored, if it is whole
_EXIF_SEGMENT = b"\xff\xe1"
_START_OF_SCAN = 0xDA


def without_metadata(content: bytes, *, keep_exif: bool) -> bytes | None:
    """Return the JPEG or PNG ``content`` without profiles, texts and comments; None where it is neither.

    What says how to read the pixels stays, and with ``keep_exif`` the orientation, which is among Exif's data.
    """
    if content.startswith(_PNG):
        return _PNG + b"".join(_png_chunks(content, keep_exif=keep_exif))
    if content.startswith(_JPEG):
        return content[:2] + b"".join(_jpeg_segments(content, keep_exif=keep_exif))
    return None


def with_metadata_first(content: bytes) -> bytes:
    """Return the PNG ``content`` with what may say how it lies before its pixels; all else as it is.

    Some programs write Exif's data and texts behind the pixels, where a reader finds them only once it has decoded all.
    """
    if not content.startswith(_PNG):
        return content
    first: list[memoryview] = []
    late: list[memoryview] = []
    rest: list[memoryview] = []
    for kind, part in _chunks_of_png(content):
        if not rest and kind != b"IDAT":
            first.append(part)
        else:
            (late if kind in _LATE_CHUNKS else rest).append(part)
    return b"".join((_PNG, *first, *late, *rest)) if late else content


def _png_chunks(content: bytes, *, keep_exif: bool) -> Iterator[memoryview]:
    for kind, part in _chunks_of_png(content):
        if kind in _PIXEL_CHUNKS or (keep_exif and kind == _EXIF_CHUNK):
            yield part


def _chunks_of_png(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, at = memoryview(content), len(_PNG)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        yield content[at + 4 : at + 8], view[at:end]
        at = end


def _jpeg_segments(content: bytes, *, keep_exif: bool) -> Iterator[memoryview]:
    view, at = memoryview(content), 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != _START_OF_SCAN:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        marker, text = content[at : at + 2], content[at + 4 : min(end, at + 16)]
        adobe = marker == _ADOBE and text.startswith(b"Adobe") and len(text) >= _ADOBE_BYTES
        exif = keep_exif and marker == _EXIF_SEGMENT and text.startswith(b"Exif")
        if marker[1] not in _METADATA_SEGMENTS or adobe or exif:
            yield view[at:end]
        at = end
    yield view[at:]
