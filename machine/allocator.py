"""How the C library (glibc) keeps what is freed: a trainer wants it at once again, a service wants to look small."""

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8  # of malloc.h
_UNLIMITED = -1
_LARGE_BLOCK = 4 * 1024 * 1024  # bytes
_KEPT = 8 * 1024 * 1024  # bytes, of a thread


def keep_freed_memory() -> None:
    """Make the C library keep what is freed, in one pool for all threads, so that the next step takes it.

    Left alone, it returns every tensor of more than 32 MiB to the system and asks for it anew, and the system clears
    each page of it first: without AVX-512, that was 2.5 million pages and two fifths of the time of a step of the
    standard preset. Call it before there are threads.
    """
    _set({_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _UNLIMITED})


def give_large_blocks_back() -> None:
    """Make the C library return blocks from 4 MiB on to the system as soon as they are free, and keep smaller ones.

    Left alone, after the first large blocks it keeps them for each thread: after sixteen pictures of 24 megapixels a
    worker held 585 MB instead of 148 MB. Of smaller ones each thread keeps up to 8 MiB. With the first setting alone
    that would be 128 KiB, and the system would clear the pages of each photograph anew: a seventh of the time.
    """
    _set({_MMAP_THRESHOLD: _LARGE_BLOCK, _TRIM_THRESHOLD: _KEPT})


def _set(settings: dict[int, int]) -> None:
    with contextlib.suppress(AttributeError, OSError):  # other C libraries have no such settings
        library = ctypes.CDLL(None)
        for setting, value in settings.items():
            library.mallopt(setting, value)
