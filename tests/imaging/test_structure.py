"""What is known of a picture's work before it is decoded."""

import io

import pytest
from PIL import Image

from imaging import Plain, TooMuchWork, open_picture, plain_structure, webp_size
from imaging.structure import check_scans
from tests.bombs import chunk, png, scan_bomb, segment, webp_header
from tests.photographs import paths
from tests.service.pictures import encoded


def picture(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    """Return a picture of one colour."""
    return Image.new(mode, (width, height), 120)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(encoded(picture(), "JPEG"), Plain("JPEG", 40, 30, 1), id="jpeg"),
        pytest.param(encoded(picture(mode="L"), "JPEG"), Plain("JPEG", 40, 30, 1), id="grey"),
        pytest.param(encoded(picture(mode="CMYK"), "JPEG"), Plain("JPEG", 40, 30, 1), id="cmyk"),
        pytest.param(encoded(picture(), "JPEG", progressive=True), Plain("JPEG", 40, 30, 10), id="progressive"),
        pytest.param(encoded(picture(), "JPEG", exif=Image.Exif(), comment=b"x"), Plain("JPEG", 40, 30, 1), id="exif"),
        pytest.param(encoded(picture()), Plain("PNG", 40, 30), id="png"),
        pytest.param(encoded(picture(mode="P"), transparency=0), Plain("PNG", 40, 30), id="palette"),
        pytest.param(encoded(picture(mode="I;16")), Plain("PNG", 40, 30), id="sixteen-bits"),
    ],
)
def test_what_encoders_write_is_plain_structure(content: bytes, expected: Plain) -> None:
    """The size and the number of scans of an ordinary file are known."""
    assert plain_structure(content) == expected


def test_photographs_are_plain() -> None:
    """Files from cameras and editors, with their metadata, are what the short way is for."""
    for path in paths():
        with Image.open(path) as image:
            assert plain_structure(path.read_bytes()) == Plain("JPEG", *image.size, 1)


def test_a_thumbnail_is_no_scan() -> None:
    """Of what lies before the picture in its metadata nothing counts."""
    thumbnail = segment(0xE1, b"Exif\0\0" + encoded(picture(16, 12), "JPEG"))
    content = encoded(picture(), "JPEG")
    assert plain_structure(content[:2] + thumbnail * 3 + content[2:]) == Plain("JPEG", 40, 30, 1)


JPEG = encoded(picture(), "JPEG")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xd8\xff", id="three-bytes"),
        pytest.param(JPEG[:2] + b"\0" + JPEG[2:], id="junk-between-segments"),
        pytest.param(JPEG[:2] + b"\xff" + JPEG[2:], id="fill-byte"),
        pytest.param(JPEG[: JPEG.index(b"\xff\xda")], id="cut-before-the-scan"),
        pytest.param(JPEG.replace(b"\xff\xc0", b"\xff\xc9"), id="arithmetic"),
        pytest.param(JPEG.replace(b"\xff\xc0\x00\x11\x08\x00\x1e", b"\xff\xc0\x00\x11\x08\x00\x00"), id="no-height"),
        pytest.param(JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), id="twelve-bits"),
        pytest.param(png(8, 8, before=chunk(b"aaAa", b"")), id="unknown-chunk"),
        pytest.param(png(8, 8, before=chunk(b"tEXt", b"a\0b") * 100), id="many-chunks"),
        pytest.param(png(8, 8, before=chunk(b"iCCP", b"a\0\0") * 2), id="two-profiles"),
        pytest.param(png(8, 8)[:-12], id="png-without-end"),
        pytest.param(encoded(picture(), "GIF"), id="gif"),
        pytest.param(encoded(picture(), "WEBP"), id="webp"),
        pytest.param(encoded(picture(), "TIFF"), id="tiff"),
        pytest.param(encoded(picture(), "BMP"), id="bmp"),
        pytest.param(encoded(picture(), "AVIF"), id="avif"),
    ],
)
def test_what_may_hide_work_is_not_plain_structure(content: bytes) -> None:
    """Odd parts, too many parts, and formats whose parts are not gone through."""
    assert plain_structure(content) is None


@pytest.mark.parametrize(("side", "scans"), [(7000, 250), (7000, 40), (511, 900), (8, 65)])
def test_scans_are_bounded(side: int, scans: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JPEG of more scans than encoders write for its size is refused before it is decoded, for whomever."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000_000)  # which a decoder sets for the whole process
    content = scan_bomb(side, scans)
    with pytest.raises(TooMuchWork, match=f"{min(scans, 65)} or more scans"):
        plain_structure(content)
    with pytest.raises(TooMuchWork, match="scans"):
        open_picture(content)


def test_segments_are_bounded() -> None:
    """A JPEG with more metadata than thirty mebibytes would need is refused before anybody goes through them."""
    assert plain_structure(JPEG[:2] + segment(0xEF, b"") * 500 + JPEG[2:]) == Plain("JPEG", 40, 30, 1)
    with pytest.raises(TooMuchWork, match="512 segments"):
        plain_structure(JPEG[:2] + segment(0xEF, b"") * 600 + JPEG[2:])


def test_only_scans_count_as_scans() -> None:
    """Their marker may stand behind the picture, as in the film of a moving photograph, or in metadata."""
    assert check_scans(JPEG + b"\xff\xda" * 1000, 1200) == 1
    assert check_scans(JPEG[:2] + segment(0xE1, b"\xff\xda" * 1000) + JPEG[2:], 1200) == 1
    with pytest.raises(TooMuchWork):
        check_scans(JPEG[:-2] + segment(0xDA, bytes(10)) * 100 + JPEG[-2:], 1200)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0II*\0"}])
@pytest.mark.parametrize("size", [(1, 1), (40, 30), (700, 20)])
def test_size_of_a_webp(options: dict[str, object], size: tuple[int, int]) -> None:
    """It is told by the head of each of its three kinds."""
    content = encoded(picture(*size), "WEBP", **options)
    assert webp_size(content) == size == Image.open(io.BytesIO(content)).size


def test_size_of_a_webp_that_holds_nothing() -> None:
    """What a few bytes say is known before anybody takes memory for it; what is no WebP has no size."""
    assert webp_size(webp_header(7071, 7072)) == (7071, 7072)
    assert webp_size(encoded(picture(), "WEBP")[:20]) is None
    assert webp_size(JPEG) is None
