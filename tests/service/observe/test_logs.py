"""The log: each line is one JSON object, and none is longer than what is useful."""

import json
import logging
import sys
from typing import Any

from service.observe.logs import JsonFormatter


def logged(message: str, *arguments: object, exception: Exception | None = None, **fields: object) -> dict[str, Any]:
    """Return the line that is logged, read as JSON."""
    error: Any = None
    if exception is not None:
        try:
            raise exception
        except type(exception):
            error = sys.exc_info()
    record = logging.LogRecord("test", logging.WARNING, "", 0, message, arguments, error)
    record.fields = fields
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry: dict[str, Any] = json.loads(line)
    return entry


def test_nothing_that_a_client_sends_breaks_a_line() -> None:
    """Line breaks and quotes, also those that only some viewers know, are escaped."""
    text = 'a"\n{"level": "critical"}\r\u2028\x85\x1b[2J'
    entry = logged("%s", text, path=text)
    assert (entry["message"], entry["path"], entry["level"]) == (text, text, "warning")


def test_long_texts_are_cut() -> None:
    """Of a long message and a long field the beginning stays, and their length is told; of a trace the end."""
    entry = logged("%s", "m" * 1_000_000, path="p" * 1_000_000, exception=ValueError("e" * 1_000_000 + "end"))
    assert entry["message"].startswith("mmm")
    assert entry["message"].endswith("mmm... (1000000 characters)")
    assert entry["exception"].endswith("eend")
    assert sum(len(str(value)) for value in entry.values()) < 30_000


def test_short_texts_are_whole() -> None:
    """What is of usual length is not touched."""
    assert logged("%s", "m" * 4000, bytes=12)["message"] == "m" * 4000
