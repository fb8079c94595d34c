"""Bodies of requests: never more of one in memory than is allowed, whichever way it comes."""

import io
import json
import time
from typing import IO, Any, NoReturn

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from service.errors import BodyTooLarge, InvalidRequest, ServiceError, SlowBody, TooManyItems

_BLOCK = 64 * 1024
_DISCARD_SECONDS = 5.0


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


def bound_body(request: Request, limit: int) -> None:
    """Refuse a body of more than ``limit`` bytes: by its length if that is announced, else while it is read.

    A body in chunks is read here and now; Werkzeug would cut it off at the limit and say nothing.

    Raises:
        BodyTooLarge: the body is over the limit.
        InvalidRequest: its chunks are malformed.
        SlowBody: the client stopped sending.
    """
    environ = request.environ
    if "HTTP_TRANSFER_ENCODING" in environ:
        body = _read_chunked(environ["wsgi.input"], limit)
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
    elif (request.content_length or 0) > limit:
        raise _too_large(limit)


def discard_body(request: Request, limit: int) -> None:
    """Read and drop what is left of a refused body, up to ``limit`` bytes and a few seconds.

    A server that answers and closes while the client still sends makes the client see a reset connection instead of
    the answer. Memory stays at one block.
    """
    stream: IO[bytes] = request.environ["wsgi.input"]
    stop = time.monotonic() + _DISCARD_SECONDS
    try:
        while limit > 0 and time.monotonic() < stop and (block := stream.read(_BLOCK)):
            limit -= len(block)
    except Exception:  # noqa: BLE001 - the client is gone or sends nonsense: there is nobody left to be kind to
        return


def read_body(request: Request) -> bytes:
    """Return the body of ``request``, which ``bound_body`` has let through.

    Raises:
        SlowBody: the client stopped sending.
    """
    try:
        return request.get_data(cache=False)
    except BlockingIOError as error:
        raise _stalled() from error


def json_body(request: Request, max_values: int) -> Any:
    """Return the JSON document of ``request``, which has at most about ``max_values`` values.

    Small values take some fifty times the memory of their text, so they are counted before they are parsed.

    Raises:
        InvalidRequest: it is not JSON, nested too deep, or holds NaN or Infinity.
        TooManyItems: it has too many values.
        SlowBody: the client stopped sending.
    """
    body = read_body(request)
    if body.count(b",") + body.count(b"[") + body.count(b"{") > max_values:
        raise TooManyItems(f"The JSON has more than the {max_values:,} values that are allowed; send fewer.")
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InvalidRequest("The JSON is nested too deep.") from error
    except ValueError as error:  # also UnicodeDecodeError, and integers of thousands of digits
        raise InvalidRequest(f"The body is not valid JSON: {error}") from error


def parse_form(request: Request) -> None:
    """Parse the multipart form of ``request``, so that ``request.files`` and ``request.form`` can be used.

    Raises:
        InvalidRequest: it is malformed, or the Content-Type has no boundary.
        TooManyItems: it has too many parts.
        SlowBody: the client stopped sending.
    """
    if not request.mimetype_params.get("boundary"):
        raise InvalidRequest(
            "The multipart Content-Type has no boundary; let the client library set this header itself."
        )
    try:
        request.files  # noqa: B018 - parses
    except RequestEntityTooLarge as error:  # of a bounded body only the number of parts can be too large
        raise TooManyItems(
            f"The form has more than the {request.max_form_parts} parts that are allowed; send fewer."
        ) from error
    except BlockingIOError as error:
        raise _stalled() from error
    except ValueError as error:
        raise InvalidRequest(f"The multipart body is malformed: {error}.") from error


def _read_chunked(stream: IO[bytes], limit: int) -> bytes:
    body = bytearray()
    try:
        while block := stream.read(_BLOCK):
            body += block
            if len(body) > limit:
                raise _too_large(limit)
    except ServiceError:
        raise
    except BlockingIOError as error:
        raise _stalled() from error
    except Exception as error:  # what the server's parser raises is its own affair
        raise InvalidRequest(f"The chunks of the body are malformed: {error}") from error
    return bytes(body)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than the {limit:,} bytes that are allowed.")


def _stalled() -> SlowBody:
    """Return the error for a body whose next bytes did not come within the socket's receive timeout."""
    return SlowBody("The body stopped coming; send it without long pauses.")


def _in_memory(*_: Any, **__: Any) -> IO[bytes]:
    return io.BytesIO()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")
