"""What a picture's file asks for, told by its segments and chunks before any pixel of it is decoded.

Most pictures that people send are JPEG and PNG whose parts are few and in order. Of these the work and the memory are
known beforehand, so that they may be decoded where nothing could stop it. All others may cost any time for their size.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from imaging.errors import TooMuchWork

_JPEG, _PNG, _WEBP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", re.compile(rb"RIFF....WEBPVP8", re.DOTALL)

# Encoders write up to 16 scans. A scan of no bytes takes as long as a full one of twice the pixels that are black.
_MOST_SCANS = 64
_MOST_SCANNED_PIXELS = 1_500_000_000  # of all scans: 50 megapixels, 30 times
_SCAN = 0xDA
_START_OF_SCAN = re.compile(rb"\xff\xda")  # found in half the time that bytes take to count it
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")  # but those that stand in the data of a scan

_FRAMES = (0xC0, 0xC1, 0xC2)  # Huffman-coded, the last one in many scans
_NOT_PLAIN = {0xC3, *range(0xC5, 0xCC), *range(0xCD, 0xD0)} - {0xC8}  # lossless, hierarchical and arithmetic-coded
_MOST_SEGMENTS = 512  # before the first scan: 32 MiB of metadata

# Their content is short, or decoded with the pixels. A profile is unpacked, up to a mebibyte.
_PLAIN_CHUNKS = {
    *(b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"tIME"),
    *(b"tEXt", b"eXIf", b"iCCP"),
}
_ONCE = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"iCCP")
_CHUNKS, _BYTES_OF_A_CHUNK = 24, 1024  # so many chunks are plain, and another one for so many bytes


class Plain(NamedTuple):
    """A file in whose structure nothing is hidden: its size in pixels, and how often they are gone through at most."""

    format: Literal["JPEG", "PNG"]
    width: int
    height: int
    passes: int = 1

    @property
    def work(self) -> int:
        """The pixels that decoding goes through, in all passes."""
        return self.width * self.height * self.passes


def plain_structure(content: bytes) -> Plain | None:
    """Return what is known of the picture in ``content``; None where its structure may hide work.

    Raises:
        TooMuchWork: it is a JPEG made to be slow.
    """
    if content.startswith(_JPEG):
        return _plain_jpeg(content)
    if content.startswith(_PNG):
        return _plain_png(content)
    return None


def check_scans(content: bytes, pixels: int, start: int = 0) -> int:
    """Return how often decoding a JPEG goes through its ``pixels`` at most, by the scans in ``content`` from ``start``.

    Raises:
        TooMuchWork: there are more scans than an encoder would write.
    """
    scans = _count(_START_OF_SCAN.finditer(content, start))
    if _too_many(scans, pixels):  # the bytes may stand in metadata or behind the picture as well
        scans = _count(marker for marker in _markers(content) if marker == _SCAN)
        if _too_many(scans, pixels):
            raise TooMuchWork(f"it has {scans} or more scans of {pixels:,} pixels, which no encoder writes")
    return max(1, scans)


def webp_size(content: bytes) -> tuple[int, int] | None:
    """Return the width and height that the WebP ``content`` says it has; None where it is none.

    Its reader takes memory for all pixels as soon as it is opened.
    """
    if not _WEBP.match(content) or len(content) < 30:
        return None
    kind, bits = content[15:16], content[20:30]
    if kind == b"X":
        return 1 + int.from_bytes(bits[4:7], "little"), 1 + int.from_bytes(bits[7:10], "little")
    if kind == b"L":
        packed = int.from_bytes(bits[1:5], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    return int.from_bytes(bits[6:8], "little") & 0x3FFF, int.from_bytes(bits[8:10], "little") & 0x3FFF


def _plain_jpeg(content: bytes) -> Plain | None:
    frame: tuple[int, int] | None = None
    at = 2
    for _ in range(_MOST_SEGMENTS):
        kind, length = content[at + 1 : at + 2], int.from_bytes(content[at + 2 : at + 4], "big")
        if content[at : at + 1] != b"\xff" or not kind or not 0xC0 <= kind[0] < 0xFF or length < 2:
            return None
        if kind[0] in _FRAMES and frame is None and content[at + 4 : at + 5] == b"\x08":
            height, width = (int.from_bytes(content[start : start + 2], "big") for start in (at + 5, at + 7))
            frame = width, height
        elif kind[0] in _FRAMES or kind[0] in _NOT_PLAIN or 0xD0 <= kind[0] < 0xDA:
            return None
        elif kind[0] == _SCAN:
            if frame is None or not frame[0] * frame[1]:
                return None
            return Plain("JPEG", *frame, check_scans(content, frame[0] * frame[1], at))
        at += 2 + length
    raise TooMuchWork(f"it has more than {_MOST_SEGMENTS} segments before its pixels, which no encoder writes")


def _count(found: Iterable[object]) -> int:
    """Return how many are ``found``, as far as it matters."""
    return sum(1 for _ in itertools.islice(found, _MOST_SCANS + 1))


def _markers(content: bytes) -> Iterator[int]:
    """Yield the kinds of the markers of a JPEG, up to its end; those inside of segments do not count."""
    at = 2
    while found := _MARKER.search(content, at):
        kind = found[1][0]
        yield kind
        if kind == 0xD9:
            return
        at = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")


def _too_many(scans: int, pixels: int) -> bool:
    return scans > _MOST_SCANS or scans * pixels > max(_MOST_SCANNED_PIXELS, pixels)


def _plain_png(content: bytes) -> Plain | None:
    seen: set[bytes] = set()
    at, left = len(_PNG), _CHUNKS + len(content) // _BYTES_OF_A_CHUNK
    while left:
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        if kind not in _PLAIN_CHUNKS or (kind in _ONCE and kind in seen):
            return None
        if kind == b"IEND":
            width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
            return Plain("PNG", width, height) if {b"IHDR", b"IDAT"} <= seen else None
        if not seen and kind != b"IHDR":
            return None
        seen.add(kind)
        at += 12 + length
        left -= 1
    return None
