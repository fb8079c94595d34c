"""Bodies of requests: never more of one in memory than is allowed, whichever way it comes."""

import codecs
import io
import re
import zlib
from typing import IO, Any, NamedTuple, TypeVar

import msgspec
from flask import Request, Response
from werkzeug.datastructures import EnvironHeaders
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser
from werkzeug.sansio.request import Request as SansIORequest

from service.inference.errors import BodyTooLarge, InvalidRequest, ServiceError, TooManyItems, UnsupportedBody

RECEIVED = "darkroom.received"  # in the WSGI environment: when the body was there, as a time of the monotonic clock

_BLOCK = 64 * 1024
_AT_ONCE = 1024 * 1024  # bytes, for which a thread keeps Python to itself
_GZIP, _ZLIB, _DEFLATE = 31, 15, -15  # what zlib calls wbits: the container around the compressed data
_COMPRESS_FROM = 1024  # bytes; below that a packet carries it anyway
_COMPRESSION_LEVEL = 1  # the others take three times as long for a tenth fewer bytes
_COMPRESSIBLE = ("application/json", "text/", "application/octet-stream", "image/svg+xml")

# The head of a part as browsers, curl, and the clients of most languages write it; all else is left to Werkzeug.
_PART = re.compile(
    rb'Content-Disposition: form-data; name="([^"\\%\r\n]+)"(?:; filename="([^"\\%\r\n]*)")?'
    rb"(?:\r\nContent-Type: [!-~ ]+)?",
    re.IGNORECASE,
)

_MOST_HEAD = 1024  # bytes, of a part that is written so
_MOST_HEAD_AT_ALL = 4096  # of another, and of what comes before the first
_MEAN_HEAD = 512  # of many
_BOUNDARIES_BY_CHANCE = 1000  # in the content of parts, where a boundary is a letter or two
_PART_BEGINS = re.compile(rb"[ \t]*[\r\n]")  # after a boundary
_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")

_MOST_MEMBERS = 1000  # of a gzip body, which other servers read one of

Document = TypeVar("Document")


class FormFile(NamedTuple):
    """A file of a form; the name is None where it has none."""

    field: str
    name: str | None
    content: bytes


class Form(NamedTuple):
    """What is in a multipart form: its files, in order, and the names of the fields that are text."""

    files: list[FormFile]
    texts: list[str]


class BodyRequest(Request):
    """A request whose form is kept in memory, which is bounded by the body's limit, and whose errors are told."""

    def make_form_data_parser(self) -> FormDataParser:
        """Return a parser that raises on malformed forms and does not write to the disk."""
        return FormDataParser(
            stream_factory=_in_memory,
            max_form_memory_size=self.max_content_length,
            max_form_parts=self.max_form_parts,
            max_content_length=self.max_content_length,
            cls=self.parameter_storage_class,
            silent=False,
        )


class ShortRequest(BodyRequest):
    """A request whose body is there already, made without the detours of WSGI."""

    def __init__(self, environ: dict[str, Any], path: str, query: str, body: bytes, max_parts: int) -> None:
        """Take the environment as WSGI has it, of which the headers are read, and the most parts of a form."""
        SansIORequest.__init__(
            self, "POST", "http", None, "", path, query.encode(), EnvironHeaders(environ), environ["REMOTE_ADDR"]
        )
        self.environ = environ
        self.shallow = False
        self.max_form_parts = max_parts
        self._body = body

    def get_data(self, *_: Any, **__: Any) -> bytes:  # type: ignore[override]  # never text
        """Return the body."""
        return self._body


def bound_body(request: Request, limit: int) -> None:
    """Refuse a body of more than ``limit`` bytes: by its length if that is announced, else while it is read.

    A body in chunks is read here and now; Werkzeug would cut it off at the limit and say nothing. So is a compressed
    one, whose limit holds for what comes out of it.

    Raises:
        BodyTooLarge: the body is over the limit.
        InvalidRequest: its chunks or its compressed data are malformed.
        UnsupportedBody: it is compressed in a way that is not read here.
        SlowBody: the client stopped sending.
    """
    environ = request.environ
    if "HTTP_TRANSFER_ENCODING" in environ:
        _replace_body(request, _read_chunked(environ["wsgi.input"], limit))
    elif (request.content_length or 0) > limit:
        raise _too_large(limit)
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity") and (body := read_body(request)):
        _replace_body(request, _decompress(body, encoding, limit))


def read_body(request: Request) -> bytes:
    """Return the body of ``request``, which ``bound_body`` has let through.

    Raises:
        SlowBody: the client stopped sending.
    """
    stream = request.environ.get("wsgi.input")
    if isinstance(stream, io.BytesIO):  # all of it is here, and Werkzeug would copy it twice
        return stream.getvalue()
    return request.get_data(cache=False)


def json_body(request: Request, type_: type[Document], max_values: int) -> Document:
    """Return the JSON document of ``request`` as ``type_``; it has at most about ``max_values`` values.

    Raises:
        InvalidRequest: it is not JSON, nested too deep, holds NaN or Infinity, or is not a ``type_``.
        TooManyItems: it has too many values.
        SlowBody: the client stopped sending.
    """
    return parse_json(read_body(request), type_, max_values)


def parse_json(text: bytes | memoryview, type_: type[Document], max_values: int) -> Document:
    """Return the JSON document ``text`` as ``type_``; see ``json_body``.

    Small values take some fifty times the memory of their text, so they are counted before they are parsed. A byte
    order mark, which some editors and shells write before UTF-8, is no part of the document.
    """
    if text[:3] == codecs.BOM_UTF8:
        text = text[3:]
    if b"\0" in bytes(text[:4]) or text[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise InvalidRequest("The body is not valid JSON: it is in UTF-16 or UTF-32, or no text; send UTF-8.")
    values = 0
    for begin in range(0, len(text), _BLOCK):  # so that other threads go on meanwhile
        count = bytes(text[begin : begin + _BLOCK]).count
        values += count(b",") + count(b"[") + count(b"{")
        if values > max_values:
            raise TooManyItems(f"The JSON has more than the {max_values:,} values that are allowed; send fewer.")
    try:
        return msgspec.json.decode(text, type=type_)
    except RecursionError as error:
        raise InvalidRequest("The JSON is nested too deeply.") from error
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The JSON is not what is taken here: {error}.") from error
    except ValueError as error:  # also UnicodeDecodeError
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from error


def read_form(request: Request) -> Form:
    """Return the multipart form of ``request``.

    Raises:
        InvalidRequest: it is malformed, or the Content-Type has no boundary.
        TooManyItems: it has too many parts.
        SlowBody: the client stopped sending.
    """
    boundary = request.mimetype_params.get("boundary")
    if not boundary:
        raise InvalidRequest(
            "The multipart Content-Type has no boundary; let the client library set this header itself."
        )
    body = read_body(request)
    if form := _plain_form(body, boundary, request.max_form_parts):
        return form
    _bound_parts(body, b"--" + boundary.encode(), request.max_form_parts or 0)
    _replace_body(request, _heads_in_utf_8(body, boundary, request.max_form_parts or 0))
    try:
        files = [FormFile(field, file.filename or None, file.read()) for field, file in request.files.items(multi=True)]
        return Form(files, list(request.form))
    except RequestEntityTooLarge as error:  # of a bounded body only the number of parts can be too large
        raise _too_many_parts(request.max_form_parts or 0) from error
    except ValueError as error:
        raise InvalidRequest(f"The multipart body is malformed: {error}.") from error


def _plain_form(body: bytes, boundary: str, max_parts: int | None) -> Form | None:
    """Return a form that is written in the usual way, in a tenth of Werkzeug's time; None for all others.

    Of a file's content there is one copy.
    """
    delimiter = b"--" + boundary.encode()
    separator = b"\r\n" + delimiter
    form, at = Form([], []), len(delimiter)
    if not body.startswith(delimiter):
        return None
    while body.startswith(b"\r\n", at) and len(form.files) + len(form.texts) < (max_parts or 0):
        head, blank, _ = body[at + 2 : at + 2 + _MOST_HEAD].partition(b"\r\n\r\n")
        found = _PART.fullmatch(head) if blank else None
        begin = at + 2 + len(head) + len(blank)
        end = _find(body, separator, begin) if found else -1
        if found is None or end < 0:
            return None
        field = _decode_head(found[1])
        if found[2] is None:
            form.texts.append(field)
        else:
            form.files.append(FormFile(field, _decode_head(found[2]) or None, body[begin:end]))
        at = end + len(separator)
    return form if body[at : at + 5] in (b"--", b"--\r\n") else None


def _find(body: bytes, what: bytes, begin: int) -> int:
    """Return where ``what`` is in ``body`` from ``begin`` on; -1 where it is not. Other threads go on meanwhile."""
    for at in range(begin, len(body), _AT_ONCE):
        found = body.find(what, at, at + _AT_ONCE + len(what) - 1)
        if found >= 0:
            return found
    return -1


def _bound_parts(body: bytes, delimiter: bytes, max_parts: int) -> None:
    """Refuse a form that would take Werkzeug long, before it begins: many parts, or long heads of parts.

    Raises:
        TooManyItems: it has too many parts.
        InvalidRequest: the heads of its parts are too long or have no end, or there is no part.
    """
    at, boundaries, parts, heads = _find(body, delimiter, 0), 0, 0, 0
    while at >= 0:
        boundaries += 1
        if boundaries > max_parts + _BOUNDARIES_BY_CHANCE:
            raise _too_many_parts(max_parts)
        if not parts and at > _MOST_HEAD_AT_ALL:
            break
        begin = at + len(delimiter)
        head = body[begin : begin + _MOST_HEAD_AT_ALL]
        if body[at - 1 : at] in (b"", b"\r", b"\n") and _PART_BEGINS.match(head):
            parts += 1
            end = _BLANK_LINE.search(head)
            heads += end.start() if end else len(head)
            if parts > max_parts:
                raise _too_many_parts(max_parts)
            if (not end and len(head) == _MOST_HEAD_AT_ALL) or heads > _MOST_HEAD_AT_ALL + parts * _MEAN_HEAD:
                raise InvalidRequest("The multipart body is malformed: the heads of its parts are too long.")
        at = _find(body, delimiter, begin)
    if not parts:
        raise InvalidRequest("The multipart body is malformed: it does not begin with the boundary.")


def _decode_head(head: bytes) -> str:
    """Return what stands in the head of a part: in UTF-8 by the standard, in Latin-1 from old systems."""
    try:
        return head.decode()
    except UnicodeDecodeError:
        return head.decode("latin-1")


def _heads_in_utf_8(body: bytes, boundary: str, most_parts: int) -> bytes:
    """Return ``body`` with the heads of its parts in UTF-8, which is all that Werkzeug reads."""
    delimiter, at, pieces = b"\r\n--" + boundary.encode(), 0, []
    begin = 0 if body.startswith(delimiter[2:]) else body.find(delimiter)
    for _ in range(most_parts):
        end = body.find(b"\r\n\r\n", begin)
        if begin < 0 or end < 0:
            break
        pieces += [body[at:begin], _decode_head(body[begin:end]).encode()]
        at, begin = end, body.find(delimiter, end)
    return b"".join([*pieces, body[at:]])


def compressible(size: int) -> bool:
    """Say whether an answer of ``size`` bytes is worth the time to compress it."""
    return size >= _COMPRESS_FROM


def compress(request: Request, response: Response) -> None:
    """Compress the body of ``response`` where the client wants it and it is worth the time."""
    if (
        not compressible(response.content_length or 0)
        or not (response.mimetype or "").startswith(_COMPRESSIBLE)
        or response.is_streamed
        or "Content-Encoding" in response.headers
    ):
        return
    response.vary.add("Accept-Encoding")
    encoding = request.accept_encodings.best_match(("gzip", "deflate"))
    if encoding is None:
        return
    compressor = zlib.compressobj(_COMPRESSION_LEVEL, wbits=_GZIP if encoding == "gzip" else _ZLIB)
    response.set_data(compressor.compress(response.get_data()) + compressor.flush())
    response.headers["Content-Encoding"] = encoding


def _replace_body(request: Request, body: bytes) -> None:
    request.environ["wsgi.input"] = io.BytesIO(body)
    request.environ["CONTENT_LENGTH"] = str(len(body))
    request.__dict__.pop("stream", None)  # Werkzeug keeps the stream that it made of what was there before


def _decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return what is in ``body``, never making more than ``limit`` bytes of it."""
    if encoding in ("gzip", "x-gzip"):
        container = _GZIP
    elif encoding == "deflate":  # by RFC 9110 in zlib's container; many clients leave that out
        container = _ZLIB if int.from_bytes(body[:2], "big") % 31 == 0 and body[:1] == b"\x78" else _DEFLATE
    else:
        raise UnsupportedBody(f"The content encoding {encoding[:40]!r} is not read here; send gzip, deflate or none.")
    content = bytearray()
    position = members = 0
    while position < len(body):  # a gzip file may have several members
        members += 1
        if members > _MOST_MEMBERS:
            raise InvalidRequest(f"The {encoding} body has more than {_MOST_MEMBERS:,} members; send one.")
        decompressor, full = zlib.decompressobj(container), False
        while (position < len(body) or full) and not decompressor.eof:
            block = memoryview(body)[position : position + _BLOCK]  # what it does not use it copies
            most = min(_AT_ONCE, limit + 1 - len(content))  # a block may become a thousand times as long
            try:
                found = decompressor.decompress(block, most)
            except zlib.error as error:
                raise InvalidRequest(f"The body is not valid {encoding}: {error}.") from error
            content += found
            if len(content) > limit:
                raise _too_large(limit)
            full = len(found) == most
            left = decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail
            position += len(block) - len(left)
        if not decompressor.eof:
            raise InvalidRequest(f"The {encoding} body is cut short.")
    return bytes(content)


def _read_chunked(stream: IO[bytes], limit: int) -> bytes:
    body = bytearray()
    try:
        while block := stream.read(_BLOCK):
            body += block
            if len(body) > limit:
                raise _too_large(limit)
    except ServiceError:
        raise
    except Exception as error:  # what the server's parser raises is its own affair
        raise InvalidRequest(f"The chunks of the body are malformed: {error}") from error
    return bytes(body)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than the {limit:,} bytes that are allowed.")


def _too_many_parts(limit: int) -> TooManyItems:
    return TooManyItems(f"The form has more than the {limit} parts that are allowed; send fewer.")


def _in_memory(*_: Any, **__: Any) -> IO[bytes]:
    return io.BytesIO()
