"""An object store that holds models: ``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX`` or ``az://CONTAINER/PREFIX``.

Below the prefix lies what lies in a folder of models, NAME/VERSION/... A version is whole when its metadata is there,
which is written last. Credentials and endpoints come from the environment, under the names that obstore reads, such as
``AWS_ACCESS_KEY_ID`` and ``AWS_ENDPOINT_URL``. obstore, of the extra ``sources``, is imported when a store is opened.
"""

import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from artifact.errors import DAMAGED, DENIED, MISSING, UNREACHABLE, SourceFails, Stopped
from artifact.files import MOST_FILES
from artifact.layout import METADATA, SAVED_MODEL, is_number_of_a_version

SCHEMES = ("s3", "gs", "az")
EXTRA_PACKAGE = "obstore"

_CLAIM = ".claim"  # the file by which a trainer takes a number, before there is anything else under it
_PROBE = ".writable"  # an empty file that shows that files can be written
_MOST_CLAIMS = 1000
_BLOCK = 4 * 1024 * 1024
_LOOK_SECONDS = 0.1  # between two looks at whether to stop
_LEAVE_SECONDS = 0.5  # for a call that nobody waits for any more

CONNECT_SECONDS, READ_SECONDS, WHOLE_SECONDS = 5, 15, 6 * 3600  # for a connection, for the next bytes, for a file
RETRIES, RETRY_SECONDS = 3, 60  # of one request, which the library tries again with a growing, random pause

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_KIND = re.compile(r"kind: (Connect|Timeout)\b")
_NO_CREDENTIALS = re.compile(r"169\.254\.169\.254|metadata\.google\.internal|MissingCredentials")

_ENDPOINTS = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    *("GOOGLE_BASE_URL", "AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
)

T = TypeVar("T")


def never() -> bool:
    """Say that nobody asks for an end."""
    return False


class Stored(NamedTuple):
    """A file in a store: its path below the store's prefix, its bytes, and what changes when it does."""

    path: str
    size: int
    etag: str


class Listing(NamedTuple):
    """What lies directly in a folder of a store: names of folders, and files."""

    folders: list[str]
    files: list[Stored]


def check_address(address: str) -> None:
    """Raise ValueError, with a sentence, where ``address`` is no store's."""
    parts = urlsplit(address)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"it begins with none of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if "@" in parts.netloc:
        raise ValueError("it has a user or a password; credentials come from the environment")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", parts.netloc):
        raise ValueError("it names no bucket")
    if parts.query or parts.fragment or ".." in parts.path.split("/"):
        raise ValueError("behind the bucket there is a prefix at most, such as models/pets")


class Store:
    """The files of an object store below one prefix."""

    def __init__(self, address: str, stop: Callable[[], bool] = never) -> None:
        """Open the store at ``address``; nothing is asked of it yet. While it is waited for, ``stop`` is asked.

        Raises:
            ModuleNotFoundError: obstore is not installed.
            SourceFails: the address or the environment lacks something.
            ValueError: the address is no store's.
        """
        check_address(address)
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        self.address = address.rstrip("/")
        self._stop = stop
        options: Any = {
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=READ_SECONDS),
            "timeout": timedelta(seconds=WHOLE_SECONDS),
        }
        if any(_endpoint(name).startswith("http://") for name in _ENDPOINTS):
            options["allow_http"] = True  # which who names such an endpoint wants
        retry: Any = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}
        try:
            self._store: Any = from_url(self.address, client_options=options, retry_config=retry)
        except (BaseError, ValueError) as error:
            wanted = _HINTS[self.address.partition(":")[0]]
            raise SourceFails(
                DENIED, f"{self.address} cannot be opened ({_first_words(error)}): set what it needs, {wanted}"
            ) from None

    def __str__(self) -> str:
        """Return its address, which has no credentials."""
        return self.address

    def listing(self, folder: str = "") -> Listing:
        """Return what lies directly in ``folder``; nothing where there is no such folder. Raises SourceFails."""
        from obstore import list_with_delimiter

        found = self._wait(lambda: list_with_delimiter(self._store, folder or None), folder)
        folders = [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]
        return Listing(sorted(folders), [_stored(entry) for entry in found["objects"]])

    def files(self, folder: str) -> list[Stored]:
        """Return all files below ``folder``, in order. Raises SourceFails, also where these are too many."""
        from obstore import list as list_files

        def gather() -> list[Stored]:
            found: list[Stored] = []
            for entries in list_files(self._store, folder):
                found += [_stored(entry) for entry in entries]
                if len(found) > MOST_FILES:
                    raise SourceFails(DAMAGED, f"{self.address}/{folder} has more than {MOST_FILES:,} files")
                self._check_stop()
            return sorted(found)

        return self._wait(gather, folder)

    def versions(self, name: str) -> list[int]:
        """Return the numbers under model ``name`` that have a file, in ascending order. Raises SourceFails."""
        return sorted(int(folder) for folder in self.listing(name).folders if is_number_of_a_version(folder))

    def read(self, path: str, most: int) -> bytes:
        """Return the content of the file at ``path``, of at most ``most`` bytes. Raises SourceFails."""
        from obstore import get

        def read() -> bytes:
            found = get(self._store, path)
            if found.meta["size"] > most:
                raise SourceFails(DAMAGED, f"{self.address}/{path} has more than {most:,} bytes")
            return bytes(found.bytes())

        return self._wait(read, path)

    def fetch(self, path: str, target: Path, size: int) -> None:
        """Write the file at ``path``, which has ``size`` bytes, to ``target``.

        Raises:
            SourceFails: it cannot be read, or has another size by now.
            OSError: ``target`` cannot be written.
        """
        from obstore import get

        def copy() -> None:
            written = 0
            with target.open("wb") as file:
                for block in get(self._store, path).stream(min_chunk_size=_BLOCK):
                    written += len(block)
                    if written > size:
                        break
                    file.write(block)
                    self._check_stop()
            if written != size:
                raise SourceFails(
                    DAMAGED, f"{self.address}/{path} does not have {size:,} bytes: it was changed meanwhile"
                )

        self._wait(copy, path)

    def require_writable(self) -> None:
        """Find out that nothing can be written, before there is anything to write. Raises SourceFails."""
        from obstore import put

        self._wait(lambda: put(self._store, _PROBE, b""), _PROBE)

    def claim(self, name: str) -> int:
        """Take the next free version of model ``name`` for oneself, and return it. Raises SourceFails.

        It is free where nobody has claimed it and no file lies under it; what came to nothing is passed over.
        """
        from obstore import put
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        number = max(self.versions(name), default=0) + 1
        for candidate in range(number, number + _MOST_CLAIMS):
            path = f"{name}/{candidate}/{_CLAIM}"

            def create(path: str = path) -> bool:
                try:
                    put(self._store, path, b"", mode="create")
                except (AlreadyExistsError, PreconditionError):
                    return False
                return True

            if self._wait(create, path):
                return candidate
        raise SourceFails(UNREACHABLE, f"{self.address} lets no number be claimed for {name}")

    def upload(self, version: Path, name: str, number: int) -> None:
        """Bring the files of the folder ``version`` under a number that was claimed; what makes it whole comes last.

        Raises:
            SourceFails: the store does not take one; nobody takes what is there by then for a version.
            OSError: a file cannot be read.
        """
        paths = sorted(path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file())
        last = (SAVED_MODEL, METADATA)  # TensorFlow Serving, which may read there too, goes by the first
        for path in sorted(paths, key=lambda path: last.index(path) + 1 if path in last else 0):
            self._put(f"{name}/{number}/{path}", version / path)

    def _put(self, path: str, content: Path) -> None:
        from obstore import put

        self._wait(lambda: put(self._store, path, content), path)

    def _wait(self, work: Callable[[], T], path: str) -> T:
        """Return what ``work`` comes to, which has a thread of its own: so that signals and ``stop`` come through.

        The library's coroutines could be cancelled, but its threads then call into Python, and a process that ends at
        that moment is aborted (obstore 0.12: one in ten that end right after a call).
        """
        from obstore.exceptions import BaseError

        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                outcome.set_exception(error)

        threading.Thread(target=run, name="store", daemon=True).start()
        try:
            while not wait([outcome], _LOOK_SECONDS).done:
                self._check_stop()
            return outcome.result()
        except (BaseError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of this machine's disk
                raise
            raise self._fault(error, path) from None
        finally:
            wait([outcome], _LEAVE_SECONDS)  # else it might come back while the process ends

    def _check_stop(self) -> None:
        if self._stop():
            raise Stopped

    def _fault(self, error: Exception, path: str) -> SourceFails:
        """Return what ``error`` of the library means, in words that have nothing of what the server said but a code."""
        text = str(error)
        place = f"{self.address}/{path}".rstrip("/")
        wanted = f"set credentials in the environment, {_HINTS[self.address.partition(':')[0]]}"
        if _NO_CREDENTIALS.search(text):
            return SourceFails(DENIED, f"nobody is named to {place}: {wanted}")
        status, code = _STATUS.search(text), _CODE.search(text)
        told = " ".join(match[1] for match in (status, code) if match)
        if status and status[1] in ("401", "403"):
            return SourceFails(DENIED, f"access to {place} is denied ({told}): {wanted}")
        if isinstance(error, FileNotFoundError) or (status and status[1] == "404"):
            return SourceFails(MISSING, f"{place} is not there ({told})")
        if status:
            return SourceFails(UNREACHABLE, f"{place} cannot be had: the server answers {told}")
        kind = _KIND.search(text)
        why = {"Connect": "no connection", "Timeout": "it takes too long"}.get(
            kind[1] if kind else "", "the connection failed"
        )
        return SourceFails(UNREACHABLE, f"{place} cannot be had: {why}")


_HINTS: Mapping[str, str] = {
    "s3": "such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "such as GOOGLE_SERVICE_ACCOUNT, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "such as AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY",
}


def _stored(entry: Any) -> Stored:
    etag = entry["e_tag"] or f"{entry['last_modified']}"
    return Stored(entry["path"], entry["size"], etag)


def _endpoint(name: str) -> str:
    return os.environ.get(name, "").strip().lower()


def _first_words(error: Exception) -> str:
    """Return what the library says of an address that it cannot open, which has heard of no server yet."""
    return str(error).partition("\n")[0].removeprefix("Generic ").strip()
