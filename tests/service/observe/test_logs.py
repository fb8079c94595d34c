"""The log: JSON, an object a line, or lines for people on a terminal; none is longer than what is useful."""

import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.observe.logs import JsonFormatter, TextFormatter
from tests.service.running import free_port


def logged(message: str, *arguments: object, exception: Exception | None = None, **fields: object) -> dict[str, Any]:
    """Return the line that is logged, read as JSON."""
    line = JsonFormatter().format(record_of(message, arguments, exception, fields))
    assert "\n" not in line
    entry: dict[str, Any] = json.loads(line)
    return entry


def record_of(
    message: str, arguments: tuple[object, ...], exception: Exception | None, fields: Mapping[str, object]
) -> logging.LogRecord:
    """Return a warning as the service's code logs it."""
    error: Any = None
    if exception is not None:
        try:
            raise exception
        except type(exception):
            error = sys.exc_info()
    record = logging.LogRecord("test", logging.WARNING, "", 0, message, arguments, error)
    record.fields = fields
    return record


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


def test_a_line_for_people_is_short_and_obeyed_by_no_terminal() -> None:
    """Time, level, message and fields stand on one line, in which control characters are escaped."""
    text = 'a"\n18:00:00  all is well\r\u2028\x1b[2J'
    line = TextFormatter().format(record_of("%s", (text,), None, {"path": text, "status": 404}))
    assert re.match(r"\d\d:\d\d:\d\d  warning: a\"\\n18:00:00  all is well", line)
    assert line.endswith(" status=404")
    assert line.isprintable()


def test_an_exception_for_people_has_its_trace_below() -> None:
    """Each line of a trace is indented, so that none looks like another record."""
    first, *trace = TextFormatter().format(record_of("failed", (), ValueError("x\nforged"), {})).splitlines()
    assert first.endswith("warning: failed")
    assert len(trace) > 2
    assert all(line.startswith("          ") for line in trace)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(("form", "people"), [("", True), ("json", False), ("text", True)])
def test_a_terminal_gets_lines_for_people(root: Path, form: str, people: bool) -> None:
    """On a terminal the service says in a line where its page is, and logs lines; LOG_FORMAT=json is JSON there too."""
    terminal, stderr = pty.openpty()
    port = str(free_port())
    variables = {"PATH": os.environ["PATH"], "PORT": port, "WORKERS": "1", "DRAIN_SECONDS": "0", "LOG_FORMAT": form}
    process = subprocess.Popen([sys.executable, "-m", "service"], cwd=root, env=variables, stderr=stderr)
    os.close(stderr)
    try:
        printed = ""
        while "loaded cifar10" not in printed:
            printed += os.read(terminal, 65536).decode()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        os.close(terminal)
    first = printed.splitlines()[0]
    if people:
        assert re.fullmatch(rf"\d\d:\d\d:\d\d  Darkroom starts; its page will be at http://localhost:{port}", first)
    else:
        assert json.loads(first)["level"] == "info"


# What fails where nobody hears of it: a thread, an object's end, and the log itself.
FAILS = """
import logging, threading
from service.observe import logs

logs.configure("info", "json")
print("plain", flush=True)

class Odd:
    def __init__(self, error):
        self.error = error
    def __del__(self):
        raise self.error
    def __str__(self):
        raise self.error

for error in (ValueError("odd"), MemoryError()):
    thread = threading.Thread(target=lambda: Odd.__str__(Odd(error)), name="worker")
    thread.start()
    thread.join()
    del thread
    logging.getLogger("test").error("%s", Odd(error))
"""


def test_whatever_fails_is_a_line_of_json(root: Path) -> None:
    """Also what ends a thread, what Python would ignore, and a line that cannot be written."""
    ended = subprocess.run([sys.executable, "-c", FAILS], cwd=root, capture_output=True, text=True, check=True)
    told = [json.loads(line) for line in ended.stderr.splitlines()]
    messages = [line["message"] for line in told]
    assert "the thread 'worker' failed" in messages
    assert "the thread 'worker' failed: there is no memory for it" in messages
    assert messages.count("a line of the log could not be written") == 2
    assert any("__del__" in message for message in messages)
    assert all(line["level"] == "error" for line in told)
    assert [("exception" in line) for line in told if line["message"].endswith("no memory for it")] != []
