"""Refuse work that comes too fast for as little as possible: what a 503 costs is taken from those who are answered."""

import functools
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from flask import Flask
from prometheus_client import Counter
from werkzeug.exceptions import HTTPException

from service.inference.errors import OVERLOADED, QueueFull
from service.observe.metrics import Metrics
from service.web.errors import Dialect, dialect_of, encode, failure_of, head_of
from service.web.operations import declared

# Only a request that every parser reads in the same way, with one plain length, may be answered without one: a head of
# nothing but names, colons and printable values, and none of the headers that change where a request ends.
_HEAD = re.compile(rb"POST (/[!-~]*) HTTP/1\.1(?:\r\n[!#-'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*)+")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([^\r]*)", re.IGNORECASE)
_UNUSUAL = re.compile(
    rb"\r\n(?:transfer-encoding:|expect:|upgrade:|connection:(?![ \t]*keep-alive[ \t]*(?:\r|\Z)))", re.IGNORECASE
)
_ID = re.compile(rb"\r\nx-request-id:[ \t]*([!-~]{1,128})[ \t]*(?=\r|\Z)", re.IGNORECASE)


@dataclass(frozen=True)
class _Refusal:
    """How one route refuses."""

    head: bytes
    body: bytes
    count: Counter


class LoadShedder:
    """Answers requests for predictions with a 503, without parsing more of them than it must."""

    def __init__(self, app: Flask, dialects: Sequence[Dialect], metrics: Metrics) -> None:
        """Take the application, whose routes say which of them may be refused."""
        self._app = app
        self._dialects = dialects
        self._metrics = metrics
        self._of = functools.lru_cache(maxsize=256)(self._make)

    def answer(self, data: bytes) -> bytes | None:
        """Return the answer to the request that ``data`` is; None where it is not whole or asks for something else."""
        head, found, body = data.partition(b"\r\n\r\n")
        start = _HEAD.fullmatch(head)
        if not found or start is None or _LENGTH.findall(head) != [b"%d" % len(body)] or _UNUSUAL.search(head):
            return None
        refusal = self._of(start[1])
        if refusal is None:
            return None
        refusal.count.inc()
        asked = _ID.search(head)
        request_id = asked[1] if asked else secrets.token_hex(16).encode()
        return b"%bX-Request-ID: %b\r\n\r\n%b" % (refusal.head, request_id, refusal.body)

    def _make(self, target: bytes) -> _Refusal | None:
        path = target.partition(b"?")[0].decode("ascii")
        try:
            rule, _ = self._app.url_map.bind("").match(path, "POST", return_rule=True)
        except HTTPException:
            return None
        operation = declared(self._app.view_functions[rule.endpoint])
        if operation is None or QueueFull not in operation.errors:
            return None
        dialect = dialect_of(path, self._dialects)
        failure = failure_of(QueueFull(OVERLOADED), dialect)
        body = encode(failure, dialect)
        count = self._metrics.requests.labels(rule.rule, "POST", str(failure.status))
        return _Refusal(head_of(failure, body, "keep-alive").encode(), body, count)
