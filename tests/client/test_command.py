"""``python -m client`` as people run it: a process, its streams and its exit code."""

import csv
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from artifact.layout import METADATA
from service.inference.plan import Plan, write_plan
from tests.client.command import PATIENCE, Darkroom
from tests.client.conftest import StartScripted
from tests.client.scripted import classified, error
from tests.models import LABELS, copy
from tests.service.conftest import StartService
from tests.service.pictures import plain
from tests.service.running import free_port, start, wait_for
from tests.test_architecture import imported

pytestmark = pytest.mark.process

COLUMNS = 60
RED, GREEN, BLUE = (plain(colour) for colour in ("red", "lime", "blue"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The folder ``pictures`` in the folder where the command runs: three good ones and a bad one."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for name, content in (("a.png", RED), ("b.png", GREEN), ("c.png", b"bad"), ("more/d, e.PNG", BLUE)):
        (folder / name).write_bytes(content)
    return folder


def many(folder: Path, count: int, content: bytes = RED) -> Path:
    """Make ``count`` names of one picture in a new folder."""
    folder.mkdir()
    first = folder / "00000.png"
    first.write_bytes(content)
    for number in range(1, count):
        (folder / f"{number:05}.png").hardlink_to(first)
    return folder


def records(source: Any) -> list[Any]:
    """Return the JSON lines that a finished process wrote, or that are in a file."""
    text = source.read_bytes() if isinstance(source, Path) else source.stdout
    return [json.loads(line) for line in text.splitlines()]


def labels(finished: Any) -> list[tuple[str, str]]:
    """Return the name of each file with its best label or its error."""
    return [(each["file"], each.get("error") or each["predictions"][0]["label"]) for each in records(finished)]


def test_results_are_json_lines_in_a_pipe(darkroom: Darkroom, service_url: str, pictures: Path) -> None:
    """A program gets an object a line; the bad picture is among them, is named at the end, and the exit code is 1."""
    done = darkroom.run("predict", "pictures", "--url", service_url, "--top", "2")
    assert done.returncode == 1
    assert labels(done) == [
        ("pictures/a.png", "red"),
        ("pictures/b.png", "green"),
        ("pictures/c.png", "unsupported_image"),
        ("pictures/more/d, e.PNG", "blue"),
    ]
    assert [len(each.get("predictions", "")) for each in records(done)] == [2, 2, 0, 2]
    assert records(done)[0]["model"] == {"name": "colours", "version": 1}
    *failures, last = done.stderr.decode().splitlines()
    assert failures == ["1 of 4 failed:", f"  pictures/c.png: {records(done)[2]['message']}"]
    assert re.fullmatch(r"4 pictures in [\d.]+ s \([\d.,]+ a second\), 1 failed", last)


def test_the_last_line_says_how_many_how_fast_and_how_many_failed(
    darkroom: Darkroom, service_url: str, pictures: Path
) -> None:
    """It is all that is on stderr where nothing failed, and not there where nobody wants it; the exit code is 0."""
    done = darkroom.run("predict", "pictures/a.png", "pictures/more", DARKROOM_URL=service_url)
    assert done.returncode == 0
    assert [label for _, label in labels(done)] == ["red", "blue"]
    last = re.fullmatch(r"2 pictures in ([\d.]+) s \(([\d.,]+) a second\), none failed\n", done.stderr.decode())
    assert last
    assert float(last[1]) < PATIENCE
    assert float(last[2].replace(",", "")) > 0
    quiet = darkroom.run("predict", "pictures/a.png", "--quiet", DARKROOM_URL=service_url)
    assert (quiet.returncode, quiet.stderr) == (0, b"")


def test_results_as_csv(darkroom: Darkroom, service_url: str, pictures: Path) -> None:
    """Any reader of CSV gets the same names and numbers."""
    done = darkroom.run("predict", "pictures", "--url", service_url, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [row["file"] for row in rows][-1] == "pictures/more/d, e.PNG"
    assert [row["label"] or row["error"] for row in rows] == ["red", "green", "unsupported_image", "blue"]
    assert float(rows[0]["probability"]) > 0.99


def test_results_as_a_table(darkroom: Darkroom, service_url: str, pictures: Path) -> None:
    """A line for each picture below a header."""
    done = darkroom.run("predict", "pictures", "--url", service_url, "--format", "table")
    assert done.stdout.decode().splitlines() == [
        "file                    label  probability",
        "pictures/a.png          red     99.93%",
        "pictures/b.png          green   99.93%",
        "pictures/c.png          failed: unsupported_image",
        "pictures/more/d, e.PNG  blue    99.93%",
    ]


def test_paths_may_come_from_everywhere(darkroom: Darkroom, service_url: str, pictures: Path) -> None:
    """A pattern in quotes, a picture on standard input, a list in a file, a list from ``find -print0``."""
    run = partial(darkroom.run, "predict", "--url", service_url)
    pattern = run("pictures/**/[ad]*")
    assert labels(pattern) == [("pictures/a.png", "red"), ("pictures/more/d, e.PNG", "blue")]
    assert labels(run("-", stdin=GREEN)) == [("-", "green")]
    (pictures / "list.txt").write_text("pictures/b.png\r\n\npictures/more\n")
    listed = run("--files-from", "pictures/list.txt", "pictures/a.png")
    assert [label for _, label in labels(listed)] == ["red", "green", "blue"]
    names = b"pictures/b.png\0pictures/a.png\0"
    found = run("--files-from", "-", "--null", stdin=names)
    assert [label for _, label in labels(found)] == ["green", "red"]


def test_paths_that_lead_nowhere_do_not_stop_the_others(darkroom: Darkroom, service_url: str, pictures: Path) -> None:
    """Missing files and empty folders are errors of theirs, in their place."""
    (pictures / "empty").mkdir()
    done = darkroom.run("predict", "missing.png", "pictures/empty", "pictures/a.png", "*.gif", "--url", service_url)
    assert [word for _, word in labels(done)] == ["not_found", "no_pictures", "red", "not_found"]
    assert done.returncode == 1


@pytest.mark.parametrize("kind", ["jsonl", "csv", "table"])
def test_names_that_are_no_text_do_no_harm(darkroom: Darkroom, service_url: str, tmp_path: Path, kind: str) -> None:
    """A name of any bytes is classified, and is the same bytes again for who reads JSON or CSV."""
    name = b"\xff\xfe \n\x1b[31m.png"
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(BLUE)
    done = darkroom.run("predict", name, ".", "--url", service_url, "--format", kind, "--quiet")
    assert (done.returncode, done.stderr) == (0, b"")
    if kind == "jsonl":
        assert [os.fsencode(file) for file, _ in labels(done)] == [name, b"./" + name]
    elif kind == "csv":
        assert done.stdout.count(b'"' + name + b'",1,blue,') == 1
    else:
        assert b"\x1b" not in done.stdout
        assert len(done.stdout.decode().splitlines()) == 3


def test_a_service_that_is_not_there_is_one_sentence(darkroom: Darkroom, tmp_path: Path, pictures: Path) -> None:
    """The address, the reason and what to do; the exit code is 2, and an older output stays."""
    (tmp_path / "out.jsonl").write_text("old")
    url = f"http://127.0.0.1:{free_port()}"
    done = darkroom.run("predict", "pictures", "--url", url, "--output", "out.jsonl")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == (
        f"error: Nothing answers at {url}: Connection refused. "
        "Does the service run? Its address is set with --url or DARKROOM_URL.\n"
    )
    assert (tmp_path / "out.jsonl").read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required: COMMAND"),
        (("predict",), "name a PATH"),
        (("predict", "a", "--url", "localhost:8000"), "must begin with http://"),
        (("predict", "a", "--url", "http://"), "No host supplied"),
        (("predict", "a", "--jobs", "0"), "must be 1 or more"),
        (("predict", "a", "--timeout", "nan"), "more than 0"),
        (("predict", "a", "--header", "Bearer"), "Name: value"),
        (("predict", "a", "--null"), "--files-from"),
        (("predict", "-", "--files-from", "-"), "standard input"),
        (("predict", "--files-from", "missing.txt"), "missing.txt: No such file"),
        (("predict", "--files-from", "-"), "the list names no file"),
        (("predict", "a", "--output", "missing/out.csv"), "No such file"),
        (("predict", "a", "--output", "csv"), "--output names a file. For the format, give --format csv"),
        (("predict", "a", "--output", "JSON"), "give --format json"),
        (
            ("predict", "a", "--output", "labels.txt"),
            "labels.txt does not end in .csv, .json, .jsonl, .ndjson; say with",
        ),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(darkroom: Darkroom, arguments: tuple[str, ...], message: str) -> None:
    """Exit code 2, the message says what is wrong, and there is no traceback."""
    Path(darkroom.folder / "a").write_bytes(RED)
    done = darkroom.run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_help_teaches(darkroom: Darkroom) -> None:
    """``--help`` has examples that begin with the command as it was called, and the exit codes."""
    text = darkroom.run("predict", "--help").stdout.decode()
    assert "darkroom predict photos --output labels.csv" in text
    assert "exit codes: 0 all pictures" in text


def test_the_model_is_described(darkroom: Darkroom, service_url: str) -> None:
    """Name, version, input and labels, a line each."""
    done = darkroom.run("model", "--url", service_url)
    lines = dict(line.split(maxsplit=1) for line in done.stdout.decode().splitlines())
    assert lines == {"name": "colours", "version": "1", "input": "32 x 32 pixels", "labels": "red, green, blue"}


def test_an_accuracy_of_few_pictures_stands_beside_its_interval(
    darkroom: Darkroom, models: Path, start_service: StartService
) -> None:
    """So nobody takes 98% of 50 pictures for exact."""
    metadata = models / "colours" / "1" / METADATA
    record = json.loads(metadata.read_text(encoding="utf-8"))
    record["metrics"].update(accuracy=0.98, images=50, measured_on="colours test")
    metadata.write_text(json.dumps(record), encoding="utf-8")
    done = darkroom.run("model", "--url", start_service().url)
    assert "accuracy  98.00% of 50 images (colours test; 95%: 89.5 to 99.6)" in done.stdout.decode()


def test_a_model_and_a_version_may_be_named(
    darkroom: Darkroom, models: Path, published: Path, start_service: StartService, pictures: Path
) -> None:
    """By every command, the version by its number or a label; what is not there is told once, with what is."""
    copy(published, models, 3, ("cherry", *LABELS[1:]), name="fruits")
    copy(published, models, 5, ("strawberry", *LABELS[1:]), name="fruits")
    write_plan(models / "fruits", Plan(labels={"stable": 3, "canary": 5}))
    service = start_service(MODEL_NAME="colours")
    url = ("--url", service.url)
    for which, named, version in (
        ((), "cherry", 3),
        (("--version", "canary"), "strawberry", 5),
        (("--version", "5"), "strawberry", 5),
    ):
        asked = ("--model", "fruits", *which)
        done = darkroom.run("predict", "pictures/a.png", *url, *asked)
        assert done.returncode == 0, done.stderr
        [record] = records(done)
        assert (record["predictions"][0]["label"], record["model"]) == (named, {"name": "fruits", "version": version})
        assert f"version   {version}\n" in darkroom.run("model", *url, *asked).stdout.decode()
    assert darkroom.run("explain", "pictures/a.png", *url, "--model", "fruits", "--label", "cherry").returncode == 0
    done = darkroom.run("predict", "pictures/a.png", *url, "--model", "a&b")
    assert done.returncode == 2
    assert "There is no model 'a&b' here; 'colours', 'fruits' are served." in done.stderr.decode()


def test_an_output_file_takes_its_format_from_its_name(darkroom: Darkroom, service_url: str, pictures: Path) -> None:
    """``--output labels.csv`` is CSV; it is written although a picture failed, and nothing is left beside it."""
    done = darkroom.run("predict", "pictures", "--url", service_url, "--output", "labels.csv")
    assert (done.returncode, done.stdout) == (1, b"")
    rows = list(csv.DictReader((darkroom.folder / "labels.csv").read_text().splitlines()))
    assert len(rows) == 4
    assert {entry.name for entry in darkroom.folder.iterdir()} == {"pictures", "labels.csv"}


def test_json_is_one_document(darkroom: Darkroom, service_url: str, pictures: Path) -> None:
    """``labels.json`` is a list that any reader of JSON takes whole, of the objects that JSON lines are."""
    run = partial(darkroom.run, "predict", "pictures", "--url", service_url)
    run("--output", "labels.json")
    run("--output", "labels.jsonl")
    document = json.loads((darkroom.folder / "labels.json").read_text())
    assert document == records(darkroom.folder / "labels.jsonl")
    assert json.loads(run("--format", "json").stdout) == document
    run("--output", "labels.txt", "--format", "csv")
    assert (darkroom.folder / "labels.txt").read_text().startswith("file,rank,label,")


def test_what_is_passed_over_is_told(darkroom: Darkroom, service_url: str, pictures: Path) -> None:
    """Files that are no pictures by their names are counted by what they end in: nothing is left out in silence."""
    for name in ("film.MOV", "film2.mov", "raw.dng", ".hidden.mov", "more/raw.DNG", "more/notes.txt"):
        (pictures / name).touch()
    done = darkroom.run("predict", "pictures/more", "pictures/a.png", "--url", service_url)
    assert done.returncode == 0
    assert done.stderr.decode().splitlines()[0] == (
        "2 passed over, which are no pictures by their names: 1 .dng, 1 .txt"
    )
    done = darkroom.run("predict", "pictures", "--url", service_url)
    assert "\n5 passed over, which are no pictures by their names: 2 .mov, 2 .dng, 1 .txt\n" in done.stderr.decode()


def test_heic_from_a_telephone_is_classified(darkroom: Darkroom, service_url: str, pictures: Path) -> None:
    """A folder of an iPhone's photographs is classified as any other; nothing of it is passed over."""
    for name in ("IMG_0001.HEIC", "IMG_0002.heif"):
        (pictures / "more" / name).write_bytes(plain("red", "HEIF", size=(64, 48)))
    done = darkroom.run("predict", "pictures/more", "--url", service_url)
    assert done.returncode == 0, done.stderr
    assert [label for _, label in labels(done)] == ["red", "red", "blue"]


def test_only_the_first_failures_are_listed(darkroom: Darkroom, service_url: str) -> None:
    """Twenty names and the number of the others; all of them are in the results."""
    done = darkroom.run("predict", *(f"missing-{number}" for number in range(25)), "--url", service_url)
    lines = done.stderr.decode().splitlines()
    assert lines[0] == "25 of 25 failed:"
    assert lines[20] == "  missing-19: There is no such file or folder."
    assert lines[21] == "  and 5 more"
    assert [line.partition(" in ")[0] for line in lines[22:]] == ["25 pictures"]
    assert len(records(done)) == 25


def test_a_closed_pipe_ends_quietly(darkroom: Darkroom, service_url: str, tmp_path: Path) -> None:
    """As with ``| head``: the rest is not classified, and nobody complains."""
    many(tmp_path / "many", 5000)
    process = darkroom.begin("predict", "many", "--url", service_url)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["file"] == "many/00000.png"
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_prompt(
    darkroom: Darkroom, start_scripted: StartScripted, tmp_path: Path, number: signal.Signals
) -> None:
    """Although a request hangs: exit code 130, how many were done, no traceback, and the old output as it was."""
    many(tmp_path / "many", 20, b"red")
    (tmp_path / "out.jsonl").write_text("old")
    server = start_scripted(lambda call: classified(call, delay=PATIENCE if call.number >= 2 else 0))
    arguments = ("predict", "many", "--url", server.url, "--jobs", "1", "--batch-size", "5", "--output", "out.jsonl")
    process = darkroom.begin(*arguments)
    wait_for(lambda: len(server.calls) == 3, lambda: f"{len(server.calls)} requests came")
    time.sleep(0.2)  # for what was answered to be counted
    process.send_signal(number)
    started = time.monotonic()
    _, stderr = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - started < 5
    assert process.returncode == 130
    assert stderr.decode() == "Interrupted after 10 pictures.\n"
    assert {entry.name: entry.is_dir() or entry.read_text() for entry in tmp_path.iterdir()} == {
        "many": True,
        "out.jsonl": "old",
    }


@pytest.mark.parametrize(
    ("environment", "header", "sent"),
    [
        ({}, (), (None, None)),
        ({"TRACEPARENT": "00-a-b-01", "TRACESTATE": "c=d"}, (), ("00-a-b-01", "c=d")),
        ({"TRACEPARENT": "00-a-b-01", "TRACESTATE": "c\nd"}, ("--header", "Traceparent: other"), ("other", None)),
    ],
)
def test_requests_are_in_the_trace_of_the_job(
    darkroom: Darkroom,
    start_scripted: StartScripted,
    tmp_path: Path,
    environment: dict[str, Any],
    header: tuple[str, ...],
    sent: tuple[str | None, str | None],
) -> None:
    """As OpenTelemetry hands it on: by two variables, of which what cannot be a header is left out."""
    (tmp_path / "a.png").write_bytes(b"red")
    server = start_scripted(classified)
    done = darkroom.run("predict", "a.png", "--url", server.url, *header, **environment)
    assert done.returncode == 0, done.stderr
    [call] = server.calls
    assert (call.headers["traceparent"], call.headers["tracestate"]) == sent


def test_a_full_disk_is_told(darkroom: Darkroom, service_url: str, pictures: Path) -> None:
    """Results that cannot be written are no results: exit code 2 and the system's words, once."""
    with Path("/dev/full").open("wb") as full:
        process = darkroom.begin("predict", "pictures", "--url", service_url, stdout=full)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr) == (2, b"error: No space left on device\n")


def on_terminal(darkroom: Darkroom, *arguments: str, **environment: Any) -> str:
    """Run the command on a terminal of its own and return all that appears there."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, COLUMNS))
    try:
        process = darkroom.begin(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, **environment)
        os.close(theirs)
        return _read_all(ours, process).decode()
    finally:
        os.close(ours)


def _read_all(terminal: int, process: "subprocess.Popen[bytes]") -> bytes:
    text = b""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.05)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            block = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not block:
            break
        text += block
    process.wait(PATIENCE)
    return text


def test_a_terminal_gets_a_table_that_fits_and_a_bar(darkroom: Darkroom, service_url: str, tmp_path: Path) -> None:
    """Progress with its rate is on stderr, the table on stdout, and no line is wider than the terminal."""
    folder = many(tmp_path / ("long-" * 30), 3)
    files = [str(file) for file in sorted(folder.iterdir())]
    text = on_terminal(darkroom, "predict", *files, "--url", service_url, TERM="xterm")
    assert "3/3 [" in text  # all files are named, so that the end is known
    assert "pictures/s" in text
    rows = [line.rpartition("\r")[2] for line in text.splitlines() if line.endswith("%")]
    assert len(rows) == 3
    assert {len(row) for row in rows} == {COLUMNS}


def test_quiet_means_no_bar(darkroom: Darkroom, service_url: str, pictures: Path) -> None:
    """Only the table is left on the terminal."""
    text = on_terminal(darkroom, "predict", "pictures/a.png", "--url", service_url, "--quiet", TERM="xterm")
    assert [line.split() for line in text.splitlines()] == [
        ["file", "label", "probability"],
        ["pictures/a.png", "red", "99.93%"],
    ]


@pytest.mark.slow
def test_a_restart_of_the_service_costs_no_picture(
    darkroom: Darkroom, start_service: StartService, models: Path, tmp_path: Path
) -> None:
    """Whoever answers again before the retries are over gets what was not answered."""
    many(tmp_path / "many", 3000)
    service = start_service()
    output = tmp_path / "out.jsonl"
    with output.open("wb") as stream:
        process = darkroom.begin("predict", "many", "--url", service.url, "--batch-size", "8", "--quiet", stdout=stream)
    wait_for(lambda: output.stat().st_size > 0, lambda: "nothing was classified")
    service.kill()
    again = start({"MODEL_DIR": str(models), "PORT": service.url.rpartition(":")[2], "DRAIN_SECONDS": "0"})
    try:
        _, stderr = process.communicate(timeout=PATIENCE)
    finally:
        again.kill()
    assert (process.returncode, stderr) == (0, b"")
    assert [record["file"][5:10] for record in records(output)] == [f"{number:05}" for number in range(3000)]


@pytest.mark.slow
def test_a_service_with_a_short_queue_answers_everything(
    darkroom: Darkroom, start_service: StartService, tmp_path: Path
) -> None:
    """A real 503 of a queue with one place is waited for, until each picture has its answer."""
    many(tmp_path / "many", 200)
    service = start_service(QUEUE_LENGTH="1")
    arguments = ("predict", "many", "--url", service.url, "--batch-size", "4", "--jobs", "8", "--retries", "30")
    done = darkroom.run(*arguments, "--quiet")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [label for _, label in labels(done)] == ["red"] * 200
    refused = re.findall(r'requests_total\{.*status="503"\} (\S+)', service.get("/metrics").text)
    assert any(map(float, refused)), "the queue was never full"


@pytest.mark.slow
def test_ten_thousand_pictures_take_no_more_memory_than_a_thousand(
    darkroom: Darkroom, service_url: str, tmp_path: Path
) -> None:
    """Pictures of together 200 MB stream through a process whose memory does not grow with their number."""
    content = RED + b"\0" * 20_000
    peaks = {}
    for count in (1_000, 10_000):
        many(tmp_path / str(count), count, content)
        done = darkroom.run(
            "predict", str(count), "--url", service_url, "--output", f"{count}.jsonl", "--quiet", measured=True
        )
        assert done.returncode == 0
        with (tmp_path / f"{count}.jsonl").open("rb") as output:
            assert sum(b'"label":"red"' in line for line in output) == count
        peaks[count] = int(done.stderr) / (1024 if sys.platform == "linux" else 1024**2)  # MiB
    print(f"peak memory in MiB by pictures: {peaks}")
    assert peaks[10_000] - peaks[1_000] < 10


def test_the_client_needs_only_requests_and_tqdm(root: Path) -> None:
    """It can be installed alone: nothing of the service, of training or of the artifact is imported."""
    assert imported(root / "client") - {"client"} - sys.stdlib_module_names == {"requests", "tqdm"}


def test_a_busy_service_is_waited_for_by_the_command(
    darkroom: Darkroom, start_scripted: StartScripted, pictures: Path
) -> None:
    """``--retries 0`` asks once, the default as often as it takes here."""
    server = start_scripted(lambda call: classified(call) if call.number % 3 == 2 else error(503, Retry_After="0"))
    (pictures / "text.png").write_bytes(b"red")
    once = darkroom.run("predict", "pictures/text.png", "--url", server.url, "--retries", "0")
    assert (once.returncode, once.stderr) == (2, b"error: Message.\n")
    server.calls.clear()
    assert labels(darkroom.run("predict", "pictures/text.png", "--url", server.url)) == [("pictures/text.png", "red")]
