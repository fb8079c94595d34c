"""Headers of every answer: what a browser may do with it, and which other origins may read it."""

import re
from collections.abc import Mapping
from typing import Any

from flask import Response

# What a page may do, as a Content-Security-Policy: nothing but what its rules name.
ISOLATED = "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

PAGE = f"{ISOLATED}; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'"
"""The same of a page with scripts, styles and pictures of the service's own."""

EVERY_ANSWER = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": ISOLATED,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What an answer has that says nothing else: it is no page, nobody keeps it, and it is what its type says."""

EVERY_ANSWER_LINES = "".join(f"{name}: {value}\r\n" for name, value in EVERY_ANSWER.items())

_EXPOSED = "Inference-Header-Content-Length, Retry-After, X-Request-ID"
_ALLOWED_HEADERS = (
    "Authorization, Content-Encoding, Content-Type, Inference-Header-Content-Length, X-Darkroom-Capture, "
    "X-Darkroom-Sticky, X-Request-ID"
)
_PREFLIGHT_SECONDS = "600"
_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([!-~]+)[ \t]*(?=\r|\Z)", re.IGNORECASE)


def complete(response: Response) -> None:
    """Give ``response`` the headers of every answer that it lacks."""
    for name, value in EVERY_ANSWER.items():
        response.headers.setdefault(name, value)


class Origins:
    """Which pages of other origins may ask from a browser and read what they are answered (CORS).

    Browsers are never allowed to send what they keep for this service, such as passwords, from a page of another
    origin: a page has to send its token itself.
    """

    def __init__(self, allowed: tuple[str, ...] | None) -> None:
        """Take the origins that are set, if any; ``*`` stands for all."""
        self._allowed = frozenset(allowed or ())

    def headers(self, environ: Mapping[str, Any]) -> dict[str, str]:
        """Return what the answer to the request of ``environ``, WSGI's, says of its origin."""
        if not self._allowed:
            return {}
        if "*" in self._allowed:
            return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": _EXPOSED}
        origin = environ.get("HTTP_ORIGIN", "")
        if origin.lower() not in self._allowed:
            return {"Vary": "Origin"}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": _EXPOSED,
            "Vary": "Origin",
        }

    def lines(self, head: bytes) -> bytes:
        """Return the same for a request with this ``head``, which nobody has parsed, as lines of a head."""
        if not self._allowed:
            return b""
        found = _ORIGIN.search(head)
        headers = self.headers({"HTTP_ORIGIN": found[1].decode("ascii")} if found else {})
        return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()

    def is_preflight(self, environ: Mapping[str, Any]) -> bool:
        """Say whether a browser asks what a page of an allowed origin may ask for."""
        return (
            environ["REQUEST_METHOD"] == "OPTIONS"
            and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
            and "Access-Control-Allow-Origin" in self.headers(environ)
        )

    def allow(self, environ: Mapping[str, Any], response: Response) -> None:
        """Say in ``response`` to the request of ``environ`` what a page of its origin may do."""
        for name, value in self.headers(environ).items():
            if name == "Vary":
                response.vary.add(value)
            else:
                response.headers[name] = value
        if response.allow and self.is_preflight(environ):
            response.headers["Access-Control-Allow-Methods"] = ", ".join(response.allow)
            response.headers["Access-Control-Allow-Headers"] = _ALLOWED_HEADERS
            response.headers["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS
