"""Logs: one JSON object a line on stderr, so that nothing a client sends can forge or break a line."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered, which every line has that is logged meanwhile."""

_OWN_FIELDS = "fields"

# Of a line, which may tell what a client sent; of an exception the end says what it was.
_MOST_CHARACTERS = 4096
_MOST_OF_A_TRACE = 16 * 1024


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
        fields: dict[str, Any] = getattr(record, _OWN_FIELDS, {})
        entry.update({key: _bounded(value) if isinstance(value, str) else value for key, value in fields.items()})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)[-_MOST_OF_A_TRACE:]
        return json.dumps(entry, default=str)


def _bounded(text: str) -> str:
    """Return ``text``, and only its beginning where it is long."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}... ({len(text)} characters)"


def configure(level: str) -> None:
    """Send everything from ``level`` (debug, info, warning, error) on to stderr as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
