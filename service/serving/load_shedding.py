"""Refuse work that comes too fast for as little as possible: what a 503 costs is taken from those who are answered."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from flask import Flask

from service.inference.errors import OVERLOADED, QueueFull
from service.serving.plain_requests import PlainRequest
from service.web.errors import Dialect, dialect_of, encode, failure_of, head_of
from service.web.headers import Origins
from service.web.notes import Answered, Notes
from service.web.operations import prediction_at

_ID = re.compile(rb"\r\nx-request-id:[ \t]*([!-~]{1,128})[ \t]*(?=\r|\Z)", re.IGNORECASE)


@dataclass(frozen=True)
class _Refusal:
    """How one route refuses."""

    head: bytes
    body: bytes
    rule: str
    status: int
    path: str
    reason: str


class LoadShedder:
    """Answers requests for predictions with a 503, without parsing more of them than it must."""

    def __init__(self, app: Flask, dialects: Sequence[Dialect], notes: Notes, origins: Origins | None = None) -> None:
        """Take the application, whose routes say which may be refused, and the ``origins`` whose pages may read it."""
        self._origins = origins or Origins(None)
        self._app = app
        self._dialects = dialects
        self._notes = notes
        self._of = functools.lru_cache(maxsize=256)(self._make)

    def answer(self, request: PlainRequest, client: str | None = None) -> bytes | None:
        """Return the answer to ``request`` of ``client``; None where it is not whole or asks for something else."""
        refusal = self._of(request.target) if request.whole else None
        if refusal is None:
            return None
        asked = _ID.search(request.head)
        request_id = asked[1] if asked else self._notes.new_id().encode()
        answered = Answered(refusal.rule, "POST", refusal.status, client, refusal.path, len(refusal.body))
        self._notes.refused(request_id.decode(), answered, refusal.reason)
        lines = self._origins.lines(request.head)
        return b"%b%bX-Request-ID: %b\r\n\r\n%b" % (refusal.head, lines, request_id, refusal.body)

    def _make(self, target: bytes) -> _Refusal | None:
        path = target.partition(b"?")[0].decode("ascii")
        prediction = prediction_at(self._app, path)
        if prediction is None:
            return None
        dialect = dialect_of(path, self._dialects)
        failure = failure_of(QueueFull(OVERLOADED), dialect)
        body = encode(failure, dialect)
        head = head_of(failure, body, "keep-alive").encode()
        return _Refusal(head, body, prediction.rule, failure.status, path, failure.name)
