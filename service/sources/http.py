"""Asks a server over HTTP by the standard library: whole answers, and files that are resumed where they were cut."""

import base64
import contextlib
import errno
import hashlib
import http.client
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from artifact.errors import DAMAGED, DENIED, MISSING, NO_SPACE, UNREACHABLE, SourceFails, Stopped

TIMEOUT_SECONDS = 15.0  # for a connection, and for the next bytes

_BLOCK = 1024 * 1024
_NOT_MODIFIED, _PARTIAL = 304, 206
_PART, _ETAG = ".part", ".etag"


class Address(NamedTuple):
    """A URL, what of it may be shown, and the headers that say who asks."""

    url: str
    shown: str
    headers: Mapping[str, str]


def address_of(url: str, token: str | None = None) -> Address:
    """Take the user and the password out of ``url``, and add a ``token`` where there is one."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    headers = {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    elif parts.username is not None:
        who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(who.encode()).decode()}"
    shown = urlunsplit((parts.scheme, host, parts.path, "", ""))  # a query may be a signature
    return Address(urlunsplit((parts.scheme, host, parts.path, parts.query, "")), shown, headers)


def read_json(address: Address, most: int) -> Any:
    """Return the JSON that the server answers with, of at most ``most`` bytes. Raises SourceFails."""
    with _opened(address, {}) as answer:
        try:
            content = answer.read(most + 1)
        except (OSError, http.client.HTTPException) as error:
            raise _cut(address, error) from None
    if len(content) > most:
        raise SourceFails(DAMAGED, f"{address.shown} answers with more than {most:,} bytes")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise SourceFails(DAMAGED, f"{address.shown} answers with something other than JSON") from None


def download(
    address: Address, target: Path, most: int, stop: Callable[[], bool], room: int, known: str | None = None
) -> str | None:
    """Write what the server has to ``target``, and return what changes when it does; None where that is ``known``.

    What an attempt before has left beside ``target`` is gone on with, where the server still has the same and sends
    the rest. ``most`` is the largest size, and ``room`` the bytes that the disk has for it.

    Raises:
        SourceFails: it cannot be had, is too large, or was cut short.
        Stopped: ``stop`` said so.
        OSError: the disk cannot be written.
    """
    part, note = target.with_name(target.name + _PART), target.with_name(target.name + _ETAG)
    try:
        return _download(address, target, part, note, most, stop, room, known)
    except (SourceFails, OSError) as error:
        if getattr(error, "reason", None) == NO_SPACE or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            part.unlink(missing_ok=True)  # else half of it would keep others from the disk
        raise


def _download(
    address: Address,
    target: Path,
    part: Path,
    note: Path,
    most: int,
    stop: Callable[[], bool],
    room: int,
    known: str | None,
) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        part.stat()  # a note without a part is of no use
        etag = note.read_text(encoding="utf-8")
        if done := part.stat().st_size:
            resumed = _resume(address, part, etag, done, most, stop, room)
            if resumed:
                part.replace(target)
                note.unlink()
                return etag
    headers = {"If-None-Match": known} if known else {}
    with _opened(address, headers) as answer:
        if answer.status == _NOT_MODIFIED:
            return None
        etag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if known and etag == known:  # a server that does not know the header
            return None
        note.write_text(etag, encoding="utf-8")
        with part.open("wb") as file:
            _copy(address, answer, file, most, stop, room)
    note.unlink()
    mark = etag or _digest(part)
    if mark == known:
        part.unlink()
        return None
    part.replace(target)
    return mark


def _resume(address: Address, part: Path, etag: str, done: int, most: int, stop: Callable[[], bool], room: int) -> bool:
    """Go on behind the first ``done`` bytes; say whether the server sent the rest of the same file."""
    if not etag or etag.startswith("W/"):  # which would not tell whether it is the same to the byte
        return False
    try:
        with _opened(address, {"Range": f"bytes={done}-", "If-Range": etag}) as answer:
            if answer.status != _PARTIAL or not str(answer.headers.get("Content-Range")).startswith(f"bytes {done}-"):
                return False
            with part.open("ab") as file:
                _copy(address, answer, file, most - done, stop, room)
    except _Unsatisfiable:
        return False
    return True


class _Unsatisfiable(SourceFails):
    """There is nothing behind what was fetched before."""


def _copy(address: Address, answer: Any, file: Any, most: int, stop: Callable[[], bool], room: int) -> None:
    told = answer.headers.get("Content-Length")
    length = int(told) if told and told.isdigit() else None
    if (length or 0) > most:
        raise SourceFails(DAMAGED, f"{address.shown} has more than {most:,} bytes")
    if (length or 0) > room:
        raise SourceFails(
            NO_SPACE,
            f"{address.shown} does not fit: it has {(length or 0) / 1e6:,.1f} MB, of which {room / 1e6:,.1f} are free",
        )
    written = 0
    while True:
        if stop():
            raise Stopped
        try:
            block = answer.read1(_BLOCK)  # what is there: a slow server must not keep anybody from stopping
        except (OSError, http.client.HTTPException) as error:
            raise _cut(address, error) from None
        if not block:
            break
        written += len(block)
        if written > most:
            raise SourceFails(DAMAGED, f"{address.shown} has more than {most:,} bytes")
        if written > room:
            raise SourceFails(NO_SPACE, f"{address.shown} does not fit: it has more than the {room / 1e6:,.1f} MB free")
        file.write(block)
    if length is not None and written != length:
        raise SourceFails(UNREACHABLE, f"{address.shown} was cut after {written:,} of {length:,} bytes")


@contextlib.contextmanager
def _opened(address: Address, headers: Mapping[str, str]) -> Iterator[Any]:
    """Give the answer to a GET, also one that says that nothing has changed. Raises SourceFails."""
    request = urllib.request.Request(  # noqa: S310 - the opener knows HTTP alone
        address.url, headers={"User-Agent": "darkroom", "Accept-Encoding": "identity"}
    )
    for name, value in {**address.headers, **headers}.items():
        request.add_unredirected_header(name, value) if name == "Authorization" else request.add_header(name, value)
    try:
        answer = _opener().open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != _NOT_MODIFIED:
            error.close()
            raise _refused(address, error.code) from None
        answer = error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _cut(address, error) from None
    with answer:
        yield answer


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Tells who asks to the same server again, and to no other."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request that follows. Raises SourceFails where it would be read and changed on its way."""
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise SourceFails(
                DENIED, f"{address_of(req.full_url).shown} redirects from https to an address that is not"
            )
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        who = req.get_header("Authorization")
        if following is not None and who and urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]:
            following.add_unredirected_header("Authorization", who)
        return following


def _opener() -> urllib.request.OpenerDirector:
    """Return what asks over HTTP and HTTPS, also through a proxy, and by nothing else that a redirect may lead to."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _refused(address: Address, code: int) -> SourceFails:
    if code in (401, 403):
        return SourceFails(DENIED, f"access to {address.shown} is denied (status {code}): check its credentials")
    if code in (404, 410):
        return SourceFails(MISSING, f"{address.shown} is not there (status {code})")
    if code == 416:
        return _Unsatisfiable(UNREACHABLE, f"{address.shown} has changed meanwhile")
    return SourceFails(UNREACHABLE, f"{address.shown} cannot be had: the server answers {code}")


def _cut(address: Address, error: Exception) -> SourceFails:
    """Return what came between, in words that have nothing of the address but what may be shown."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        why = f"it has said nothing for {TIMEOUT_SECONDS:g} s"
    elif isinstance(reason, ssl.SSLError):
        why = f"its certificate is not good ({reason.reason or 'TLS fails'})"
    elif isinstance(reason, OSError) and reason.errno:
        why = os.strerror(reason.errno) if reason.errno > 0 else "its name is not known"
    else:
        why = "the connection was cut"
    return SourceFails(UNREACHABLE, f"{address.shown} cannot be had: {why}")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
