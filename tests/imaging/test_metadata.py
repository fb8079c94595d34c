"""Pictures whose pixels are good are read, whatever is wrong with their metadata."""

import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from artifact import Input
from imaging import Pixels, UndecodablePicture, open_picture, prepare, to_input, upright_size
from tests.bombs import chunk, segment
from tests.service.pictures import encoded

SIZE = Input(24, 32)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
JPEG, PNG = encoded(PICTURE, "JPEG"), encoded(PICTURE)


def decoded(content: bytes) -> Pixels:
    """Return the pixels in ``content``."""
    return to_input(open_picture(content), SIZE)


def with_segment(data: bytes, kind: int) -> bytes:
    """Return the JPEG with another segment in front."""
    return JPEG[:2] + segment(kind, data) + JPEG[2:]


def with_chunk(part: bytes) -> bytes:
    """Return the PNG with another chunk behind its header."""
    return PNG[:33] + part + PNG[33:]


def wrong_checksum(part: bytes) -> bytes:
    """Return a chunk whose checksum is of something else."""
    return part[:-4] + struct.pack(">I", zlib.crc32(part))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(with_segment(b"JFIF\0", 0xE0), id="short-jfif"),
        pytest.param(with_segment(b"JFIF", 0xE0), id="shorter-jfif"),
        pytest.param(with_segment(b"Exif\0\0", 0xE1), id="empty-exif"),
        pytest.param(with_segment(b"Exif\0\0MM\0*\xff\xff\xff\xff", 0xE1), id="exif-that-leads-nowhere"),
        pytest.param(with_segment(b"Adobe", 0xEE), id="short-adobe"),
        pytest.param(with_segment(b"ICC_PROFILE\0", 0xE2), id="short-profile"),
        pytest.param(with_segment(b"ICC_PROFILE\0\x07\x02xx", 0xE2), id="profile-in-missing-parts"),
        pytest.param(with_segment(b"MPF\0", 0xE2), id="short-multi-picture"),
        pytest.param(with_segment(b"MPF\0II*\0\xff\xff\xff\x7f", 0xE2), id="multi-picture-that-leads-nowhere"),
        pytest.param(with_segment(b"Photoshop 3.0\0008BIM\x03\xed\0\0\0\0", 0xED), id="short-photoshop"),
        pytest.param(with_segment(b"Photoshop 3.0\0008BIM", 0xED), id="shorter-photoshop"),
        pytest.param(with_segment(b"http://ns.adobe.com/xap/1.0/\0<x", 0xE1), id="cut-xmp"),
    ],
)
def test_jpegs(content: bytes) -> None:
    """Each is read as the same file without the segment is."""
    np.testing.assert_array_equal(decoded(content), decoded(JPEG))


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(3_000_000))), id="large-profile"),
        pytest.param(chunk(b"iCCP", b"a\0\1xx"), id="profile-of-unknown-compression"),
        pytest.param(chunk(b"iCCP", b"a"), id="short-profile"),
        pytest.param(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000))), id="large-text"),
        pytest.param(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 80, id="many-texts"),
        pytest.param(chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(3_000_000))), id="large-unicode-text"),
        pytest.param(chunk(b"gAMA", b""), id="short-gamma"),
        pytest.param(chunk(b"pHYs", b"12"), id="short-resolution"),
        pytest.param(chunk(b"cHRM", b"123"), id="short-chromaticities"),
        pytest.param(chunk(b"sRGB", b""), id="short-intent"),
        pytest.param(chunk(b"acTL", b"1"), id="short-animation"),
        pytest.param(chunk(b"fcTL", b"1"), id="short-frame"),
        pytest.param(wrong_checksum(chunk(b"tEXt", b"a\0b")), id="text-checksum"),
        pytest.param(wrong_checksum(chunk(b"iCCP", b"a\0\0" + zlib.compress(b"profile"))), id="profile-checksum"),
        pytest.param(wrong_checksum(chunk(b"eXIf", b"II*\0")), id="exif-checksum"),
    ],
)
def test_pngs(part: bytes) -> None:
    """Each is read as the same file without the chunk is."""
    np.testing.assert_array_equal(decoded(with_chunk(part)), decoded(PNG))


def test_how_a_picture_lies_is_kept() -> None:
    """Where another part of the metadata is damaged, the picture is still turned upright."""
    exif = Image.Exif()
    exif[0x0112] = 3
    half_a_turn = encoded(PICTURE, exif=exif)
    assert not np.array_equal(decoded(half_a_turn), decoded(PNG))
    damaged = half_a_turn[:33] + chunk(b"gAMA", b"") + half_a_turn[33:]
    np.testing.assert_array_equal(decoded(damaged), decoded(half_a_turn))


@pytest.mark.parametrize("as_text", [False, True])
def test_how_a_picture_lies_may_stand_behind_its_pixels(*, as_text: bool) -> None:
    """A PNG whose Exif or XMP comes last, as ExifTool writes it, is upright, and its size is known beforehand."""
    if as_text:
        part = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        part = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    first, last = PNG[:33] + part + PNG[33:], PNG[:-12] + part + PNG[-12:]
    assert not np.array_equal(decoded(last), decoded(PNG))
    np.testing.assert_array_equal(decoded(last), decoded(first))
    assert upright_size(open_picture(last)) == (24, 32)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_what_is_asked_before_the_pixels_decodes_none(kind: str) -> None:
    """The size of an upright picture, and the memory that it takes, are known of the first half of its file."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8))
    content = encoded(noise, kind)
    image = open_picture(content)
    assert upright_size(image) == (320, 240)
    prepare(image, SIZE)
    assert getattr(image, "_im", None) is None, "pixels were decoded"


def test_what_says_how_to_read_pixels_is_kept() -> None:
    """A palette, a colour that is transparent, and the colours of a CMYK picture are no metadata."""
    palette = PICTURE.convert("P", palette=Image.Palette.ADAPTIVE)
    seen = encoded(palette, transparency=0)
    damaged = seen[:33] + chunk(b"gAMA", b"") + seen[33:]
    np.testing.assert_array_equal(decoded(damaged), decoded(seen))
    cmyk = encoded(PICTURE.convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(decoded(cmyk[:2] + segment(0xE0, b"JFIF") + cmyk[2:]), decoded(cmyk))


@pytest.mark.parametrize("at", [16, 20, 24, 25])
def test_damaged_pixels_stay_an_error(at: int) -> None:
    """The header of a PNG has a checksum too, and where that is wrong nobody knows what else is."""
    content = bytearray(PNG)
    content[at] ^= 1
    with pytest.raises(UndecodablePicture):
        decoded(bytes(content))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_random_damage_to_metadata(kind: str) -> None:
    """In each of 300 files bytes inside of metadata are others than they were, and all pixels are read."""
    exif, text = Image.Exif(), PngInfo()
    exif[0x010E] = "a description"
    text.add_text("comment", "a text")
    text.add_itxt("more", "of it", zip=True)
    options = {"pnginfo": text} if kind == "PNG" else {"comment": b"a comment", "dpi": (72, 72)}
    good = encoded(PICTURE, kind, exif=exif, icc_profile=b"a profile" * 20, **options)
    chance, expected = random.Random(0), decoded(good)
    ranges = [range(start, end) for start, end in _metadata(good, kind)]
    assert len(ranges) >= 4
    for _ in range(300):
        content = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            content[chance.choice(chance.choice(ranges))] = chance.randrange(256)
        np.testing.assert_array_equal(decoded(bytes(content)), expected)


def _metadata(content: bytes, kind: str) -> list[tuple[int, int]]:
    """Return where the contents of metadata begin and end; not their lengths, which say where pixels begin."""
    found, at = [], 8 if kind == "PNG" else 2
    while at < len(content) and content[at : at + 2] != b"\xff\xda":
        if kind == "PNG":
            length = int.from_bytes(content[at : at + 4], "big")
            if content[at + 4 : at + 8] not in (b"IHDR", b"IDAT", b"IEND"):
                found.append((at + 8, at + 12 + length))
            at += 12 + length
        else:
            length = int.from_bytes(content[at + 2 : at + 4], "big")
            if content[at + 1] in (0xE0, 0xE1, 0xE2, 0xFE):
                found.append((at + 4, at + 2 + length))
            at += 2 + length
    return found
