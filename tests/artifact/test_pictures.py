"""The list of suffixes is that of what can be decoded."""

from PIL import Image

from artifact.pictures import SUFFIXES, has_suffix, is_visible
from imaging import FORMATS

# Formats that Pillow names and cannot decode by itself, that are no pictures, or for which it runs another program.
NOT_READ = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PALM", "PDF", "WMF"}


def test_all_that_is_decoded_is_looked_for_and_nothing_else() -> None:
    """Every ending that Pillow has for a format that the service or training decodes is in the list."""
    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind not in NOT_READ}
    assert {"", *known} == SUFFIXES
    assert set(FORMATS) <= set(Image.OPEN)


def test_a_name_tells_whether_it_may_be_a_picture() -> None:
    """In any case of letters, or without a suffix."""
    names = ("a.jpg", "a.JFIF", "a.jpe", "a.apng", "a.b.webp", "a.pgm", "a.mpo", "a", "IMG_1.HEIC", "2.tif", "a b.Png")
    assert [name for name in names if not has_suffix(name)] == []
    assert not [name for name in ("a.txt", "a.jpg.zip", "a.eps", "a.pdf", "a.mpg", "a.h5", "a.mov") if has_suffix(name)]


def test_what_is_hidden_or_left_behind_is_no_users() -> None:
    """Hidden files, and those of macOS, Windows, network drives and file systems."""
    names = (".a.jpg", ".git", "__MACOSX", "Thumbs.db", "@eaDir", "lost+found", "$RECYCLE.BIN")
    assert not [name for name in names if is_visible(name)]
    assert is_visible("a.jpg")
