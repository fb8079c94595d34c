"""The pages for people and their files: kept in memory, sent again only when they changed, and tied to this origin.

Not by Flask's ``send_file``: its ETag is made of a file's time, which differs between replicas or stays the same in
images that are built reproducibly, and what it streams is neither compressed nor safe to compress where it is a range.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from flask import Request, Response
from jinja2 import Environment, FileSystemLoader
from werkzeug.exceptions import NotFound

from service.web.headers import ISOLATED

PAGES = Path(__file__).parent / "static"
HTML = "text/html; charset=utf-8"

MEDIA_TYPES: dict[str, str] = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}


class _File(NamedTuple):
    content: bytes
    content_type: str
    etag: str


def send(request: Request, path: Path, policy: str = ISOLATED) -> Response:
    """Return the file at ``path`` under the Content-Security-Policy ``policy``; 304 where the client has it.

    Caches ask each time whether it is still the same, so that pages and their scripts are of one version.

    Raises:
        NotFound: there is no such file.
    """
    try:
        file = _read(path)
    except (OSError, ValueError) as error:  # a null byte is a ValueError
        raise NotFound from error
    return _answer(request, file, policy)


def page(template: str, **values: object) -> bytes:
    """Return the page that ``template`` makes of ``values``, which are text unless they say that they are HTML."""
    return _templates().get_template(template).render(values).encode()


def respond(request: Request, content: bytes, content_type: str, policy: str = ISOLATED) -> Response:
    """Return ``content`` that was made for a request in the same way."""
    return _answer(request, _File(content, content_type, _etag(content)), policy)


def _answer(request: Request, file: _File, policy: str) -> Response:
    if request.if_none_match.contains_weak(file.etag):
        response = Response(status=304)
    else:
        response = Response(file.content, content_type=file.content_type)
    response.set_etag(file.etag, weak=True)  # it may be compressed on its way
    response.headers["Cache-Control"] = "no-cache"
    response.headers["Content-Security-Policy"] = policy
    return response


def answers(*suffixes: str) -> dict[int, dict[str, Any]]:
    """Return what ``operation`` declares of files with one of ``suffixes``: status -> media type -> type."""
    return {200: {MEDIA_TYPES[suffix]: Any if suffix == ".webp" else str for suffix in suffixes}, 304: {}}


@functools.cache
def _templates() -> Environment:
    folder = Path(__file__).parent / "templates"
    return Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True)


@functools.cache
def _read(path: Path) -> _File:
    content = path.read_bytes()
    media_type = MEDIA_TYPES[path.suffix]
    content_type = media_type if media_type == "image/webp" else f"{media_type}; charset=utf-8"
    return _File(content, content_type, _etag(content))


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
