"""Logs on stderr, in JSON, an object a line, or for people. Nothing that a client sends can forge or break a line."""

import contextlib
import json
import logging
import os
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

log = logging.getLogger(__name__)

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered, which every line has that is logged meanwhile."""

TRACE_ID: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""The id of its trace, where requests are traced."""

_OWN_FIELDS = "fields"

# Of a line, which may tell what a client sent; of an exception the end says what it was.
_MOST_CHARACTERS = 4096
_MOST_OF_A_TRACE = 16 * 1024

_LOST = b'{"level": "error", "message": "a line of the log could not be written"}\n'


class JsonFormatter(logging.Formatter):
    """Renders a record as one line of JSON; ``extra={"fields": {...}}`` adds keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON without line breaks."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": _bounded(record.getMessage()),
        }
        if request_id := REQUEST_ID.get():
            entry["request_id"] = request_id
        if trace_id := TRACE_ID.get():
            entry["trace_id"] = trace_id
        fields: dict[str, Any] = getattr(record, _OWN_FIELDS, {})
        entry.update({key: _bounded(value) if isinstance(value, str) else value for key, value in fields.items()})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)[-_MOST_OF_A_TRACE:]
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """Renders a record as a line for people, and the trace of an exception on lines of its own below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the time, the level where it is not info, the message and the fields; no control characters."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        fields: dict[str, Any] = getattr(record, _OWN_FIELDS, {})
        told = "".join(f" {key}={value}" for key, value in fields.items())
        line = f"{datetime.fromtimestamp(record.created):%H:%M:%S}  {level}{_bounded(record.getMessage() + told)}"  # noqa: DTZ006 - the time of whoever reads it
        trace = self.formatException(record.exc_info)[-_MOST_OF_A_TRACE:].splitlines() if record.exc_info else []
        return "\n".join(map(_printable, [line, *(f"          {text}" for text in trace)]))


def _printable(text: str) -> str:
    """Return ``text`` with everything escaped that a terminal would obey."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _bounded(text: str) -> str:
    """Return ``text``, and only its beginning where it is long."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}... ({len(text)} characters)"


def for_people(form: str) -> bool:
    """Say whether ``form`` (auto, json, text) means lines for people: auto does on a terminal."""
    return form == "text" or (form == "auto" and sys.stderr.isatty())


class _Handler(logging.StreamHandler[TextIO]):
    """Writes records; of one that cannot be written, as where there is no memory, a line that needs none."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is that of the library
        """Write a line that is there already."""
        with contextlib.suppress(OSError):
            os.write(2, _LOST)


def failed(what: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Log an error of which nobody else hears, in ``what``; in one line where memory was short, which may be often."""
    if issubclass(kind, MemoryError):
        log.error("%s failed: there is no memory for it", what)
    else:
        log.error("%s failed", what, exc_info=(kind, error or kind(), trace))


def _thread_failed(told: threading.ExceptHookArgs) -> None:
    if told.exc_type is not SystemExit:
        failed(f"the thread {told.thread.name!r}" if told.thread else "a thread", *told[:3])


def _ignored(told: "sys.UnraisableHookArgs") -> None:
    where = getattr(told.object, "__qualname__", type(told.object).__name__)
    failed(str(told.err_msg or where), told.exc_type, told.exc_value, told.exc_traceback)


def configure(level: str, form: str) -> None:
    """Send everything from ``level`` (debug, info, warning, error) on to stderr, in ``form`` (auto, json, text).

    So are errors that end a thread, and those that Python ignores.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(TextFormatter() if for_people(form) else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    threading.excepthook, sys.unraisablehook = _thread_failed, _ignored
