"""Which files and folders of a tree are looked at for pictures: the same for training, its commands and the client.

A name decides, since a folder of a million files cannot be opened first. What then is no picture is told as such. This
file is in ``artifact`` and in ``client``, which can be installed alone; a test holds the two equal.
"""

from pathlib import PurePath

SUFFIXES = frozenset(
    (
        "",  # a picture may have none
        # what the service reads
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif",
        ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif",
        # what Pillow reads beside, for training
        ".blp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".fit", ".fits", ".flc", ".fli", ".ftc", ".ftu", ".gbr", ".icb",
        ".icns", ".ico", ".iim", ".im", ".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx", ".msp", ".pbm", ".pcd", ".pcx",
        ".pfm", ".pgm", ".pnm", ".ppm", ".psd", ".pxr", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".vda", ".vst",
        ".xbm", ".xpm",
    )
)  # fmt: skip
"""The endings of pictures' files, in lower case and with their dots."""

_LEFT_BEHIND = ("__macosx", "thumbs.db", "@eadir", "lost+found", "$recycle.bin", "system volume information")


def has_suffix(name: str) -> bool:
    """Say whether a file of this name may be a picture."""
    return PurePath(name).suffix.lower() in SUFFIXES


def is_visible(name: str) -> bool:
    """Say whether a file or folder of this name is a user's own: neither hidden nor what systems leave behind."""
    return not name.startswith(".") and name.casefold() not in _LEFT_BEHIND
