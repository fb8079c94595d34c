"""MODEL_SOURCE: which kind of source an address is of, and whether it can be used."""

import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from artifact import store
from service.sources import hub
from service.sources.archive import Archive
from service.sources.bucket import Bucket
from service.sources.catalogue import Source
from service.sources.hub import Hub

_ARCHIVE = re.compile(r".+\.(?:tar|tar\.gz|tgz)")


def check_address(address: str) -> None:
    """Raise ValueError, with a sentence, where ``address`` is none that models can come from."""
    parts = urlsplit(address)
    if parts.scheme in store.SCHEMES:
        store.check_address(address)
    elif parts.scheme == "hf":
        hub.parse(address)
    elif parts.scheme not in ("http", "https"):
        raise ValueError(f"no models come from {parts.scheme}://")
    elif not parts.hostname or not _ARCHIVE.fullmatch(parts.path):
        raise ValueError("over HTTP it must be an archive, https://HOST/FILE.tar or .tar.gz")


def missing_package(address: str) -> str | None:
    """Return the package that ``address`` needs and that is not installed."""
    needed = urlsplit(address).scheme in store.SCHEMES
    return store.EXTRA_PACKAGE if needed and importlib.util.find_spec(store.EXTRA_PACKAGE) is None else None


def open_source(address: str, folder: Path, names: tuple[str, ...] | None, stop: Callable[[], bool]) -> Source:
    """Return the source at ``address``, which may use ``folder`` while it fetches. Raises SourceFails.

    Where ``names`` are given, other models need not be looked at.
    """
    scheme = urlsplit(address).scheme
    if scheme in store.SCHEMES:
        return Bucket(address, names, stop)
    if scheme == "hf":
        return Hub(address, folder, os.environ, stop)
    return Archive(address, folder, stop)
