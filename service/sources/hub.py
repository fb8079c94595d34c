"""Models in a repository of the Hugging Face hub: ``hf://OWNER/REPO[@REVISION][/FOLDER]``."""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from artifact.errors import DAMAGED, SourceFails
from artifact.files import MOST_BYTES, MOST_FILES
from service.sources import http
from service.sources.catalogue import Catalogue, catalogue_of

ENDPOINT, TOKEN = "HF_ENDPOINT", "HF_TOKEN"

_ADDRESS = re.compile(
    r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<folder>.+?))?/?", re.ASCII
)
_HUB = "https://huggingface.co"
_MOST_LISTING = 64 * 1024 * 1024  # bytes of JSON


def parse(address: str) -> Mapping[str, str | None]:
    """Return repository, revision and folder of ``address``. Raises ValueError, with a sentence, where it is none."""
    match = _ADDRESS.fullmatch(address)
    if not match or ".." in (match["folder"] or "").split("/"):
        raise ValueError("a repository of the hub is hf://OWNER/REPO, with @REVISION and /FOLDER where needed")
    return match.groupdict()


class Hub:
    """The models in a repository, at the commit that its revision is by now."""

    def __init__(self, address: str, folder: Path, environment: Mapping[str, str], stop: Callable[[], bool]) -> None:
        """Take its address, and a folder for what is being fetched."""
        parts = parse(address)
        self._repository, self._folder = parts["repository"], parts["folder"]
        self._revision = parts["revision"] or "main"
        self._endpoint = (environment.get(ENDPOINT, "").strip() or _HUB).rstrip("/")
        self._token = environment.get(TOKEN, "").strip() or None
        self._file = folder / "file"
        self._stop = stop
        self._shown = address.rstrip("/")
        self._commit = ""

    def __str__(self) -> str:
        """Return its address."""
        return self._shown

    def look(self, known: str | None) -> Catalogue | None:
        """Ask which commit the revision is by now, and return what is in it where that is another one."""
        found = http.read_json(
            self._at(f"api/models/{self._repository}/revision/{quote(self._revision, safe='')}?blobs=true"),
            _MOST_LISTING,
        )
        try:
            commit, listed = str(found["sha"]), found["siblings"]
            sizes = {str(file["rfilename"]): int(file["size"]) for file in listed}
        except (KeyError, TypeError, ValueError):
            raise SourceFails(DAMAGED, f"{self} does not answer as the hub does") from None
        if commit == known:
            return None
        if len(sizes) > 10 * MOST_FILES:
            raise SourceFails(DAMAGED, f"{self} has more than {10 * MOST_FILES:,} files")
        self._commit = commit
        top = f"{self._folder}/" if self._folder else ""
        below = {path.removeprefix(top): size for path, size in sizes.items() if path.startswith(top)}
        return catalogue_of(self, below, commit)

    def read(self, path: str, most: int) -> bytes:
        """Return the content of a file."""
        self._download(path, most)
        try:
            return self._file.read_bytes()
        finally:
            self._file.unlink()

    def fetch(self, path: str, target: Path) -> None:
        """Write a file to ``target``."""
        self._download(path, MOST_BYTES)
        self._file.replace(target)

    def close(self) -> None:
        """Keep nothing open."""

    def _download(self, path: str, most: int) -> None:
        whole = f"{self._folder}/{path}" if self._folder else path
        address = self._at(f"{self._repository}/resolve/{self._commit}/{quote(whole)}")
        http.download(address, self._file, most, self._stop, shutil.disk_usage(self._file.parent).free)

    def _at(self, path: str) -> http.Address:
        return http.address_of(f"{self._endpoint}/{path}", self._token)
