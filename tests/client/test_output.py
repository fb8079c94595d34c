"""How results are written."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from client.output import Csv, JsonLines, Table, clean, opened, shortened, width
from client.results import Model, Prediction, Result

FROG = Result("frog.jpg", (Prediction("frog", 0.98765), Prediction("dog", 0.01)), Model("cifar10", 1))
BAD = Result("bad.jpg", error="invalid_image", message="It is empty.")


def test_json_lines_say_all_that_is_known() -> None:
    """Each line is an object: predictions with the model that made them, or the error."""
    stream = io.StringIO()
    JsonLines(stream).write([FROG, BAD])
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {
            "file": "frog.jpg",
            "predictions": [{"label": "frog", "probability": 0.98765}, {"label": "dog", "probability": 0.01}],
            "model": {"name": "cifar10", "version": 1},
        },
        {"file": "bad.jpg", "error": "invalid_image", "message": "It is empty."},
    ]


def test_json_keeps_letters_and_escapes_what_is_no_text() -> None:
    """A line can be searched for a name in any script; bytes that are no text come back from their escapes."""
    stream = io.StringIO()
    JsonLines(stream).write([Result("grün.png", error="e"), Result("\udcff.png", error="e")])
    first, second = stream.getvalue().splitlines()
    assert "grün.png" in first
    assert second.isascii()
    assert os.fsencode(json.loads(second)["file"]) == b"\xff.png"


def test_csv_has_one_header_and_quotes_what_needs_it() -> None:
    """A row for each label with its rank; a failure has a row too; commas, quotes and newlines in names survive."""
    stream = io.StringIO()
    writer = Csv(stream)
    writer.write([FROG])
    writer.write([Result('a,"b"\nc.png', error="e", message="m, n")])
    stream.seek(0)
    assert list(csv.reader(stream)) == [
        ["file", "rank", "label", "probability", "error", "message", "familiar"],
        ["frog.jpg", "1", "frog", "0.98765", "", "", ""],
        ["frog.jpg", "2", "dog", "0.01", "", "", ""],
        ['a,"b"\nc.png', "", "", "", "e", "m, n", ""],
    ]


def test_every_form_says_what_is_not_familiar() -> None:
    """JSON and CSV say it of each picture of a model that tells; the table only of those that are not."""
    results = [replace(FROG, familiar=True), replace(FROG, file="noise.png", familiar=False)]
    lines, rows, table = io.StringIO(), io.StringIO(), io.StringIO()
    JsonLines(lines).write(results)
    assert [json.loads(line)["familiar"] for line in lines.getvalue().splitlines()] == [True, False]
    Csv(rows).write(results)
    assert [row["familiar"] for row in csv.DictReader(rows.getvalue().splitlines())] == ["true"] * 2 + ["false"] * 2
    Table(table, 50).write(results)
    assert table.getvalue().splitlines()[1:] == [
        "frog.jpg   frog    98.77%  dog      1.00%",
        "noise.png  frog    98.77%  dog      1.00%  unfamiliar",
    ]
    narrow = io.StringIO()
    Table(narrow, 60).write([replace(FROG, file="x" * 100, predictions=FROG.predictions[:1], familiar=False)])
    assert width(narrow.getvalue().splitlines()[1]) == 60


def test_a_table_has_columns() -> None:
    """Labels and percentages stand below each other, whatever the scripts of the names."""
    stream = io.StringIO()
    wide = Result("写真.jpg", (Prediction("automobile", 1.0), Prediction("dog", 0.0)))
    Table(stream, None).write([FROG, wide, BAD])
    assert stream.getvalue().splitlines() == [
        "file      label       probability",
        "frog.jpg  frog         98.77%  dog           1.00%",
        "写真.jpg  automobile  100.00%  dog           0.00%",
        "bad.jpg   failed: invalid_image",
    ]


def test_a_table_fits_the_terminal() -> None:
    """Long names lose their middle; the header is written once."""
    stream = io.StringIO()
    table = Table(stream, 60)
    table.write([Result("photos/" + "x" * 100 + "/0001.jpg", FROG.predictions[:1])])
    table.write([Result("photos/" + "写" * 100 + "/0002.jpg", FROG.predictions[:1])])
    lines = stream.getvalue().splitlines()
    assert [width(line) for line in lines[1:]] == [60, 60]
    assert sum(line.startswith("file ") for line in lines) == 1
    assert all(line.startswith("photos/") and "/000" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("short", 5, "short"),
        ("abcdefghij", 7, "abc…hij"),
        ("写写写写写", 7, "写…写写"),
        ("e\u0301cole\u0301", 4, "e\u0301…le\u0301"),
    ],
)
def test_a_shortened_text_keeps_both_ends(text: str, columns: int, expected: str) -> None:
    """Wide characters count twice, and marks over letters not at all."""
    assert shortened(text, columns) == expected
    assert width(shortened(text, columns)) <= columns


def test_nothing_in_a_name_reaches_the_terminal_as_a_command() -> None:
    """Escape sequences, newlines, reversed writing and bytes that are no text each become one visible sign."""
    assert clean("a\x1b[2Jb\nc\u202ed\udcff.png") == "a\ufffd[2Jb\ufffdc\ufffdd\ufffd.png"


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    """Until all is written the old file is there; then the new one is, with the permissions of a new file."""
    target = tmp_path / "out.csv"
    target.write_text("old")
    with opened(str(target), table=False) as stream:
        stream.write("ne")
        assert target.read_text() == "old"
        stream.write("w\udcff")
    assert target.read_bytes() == b"new\xff"
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    """An interruption leaves the old file and no half of a new one."""
    target = tmp_path / "out.csv"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_links_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    """The file behind a link is replaced, not the link; a pipe or a device is written to."""
    (tmp_path / "link").symlink_to(tmp_path / "out.csv")
    with opened(str(tmp_path / "link"), table=False) as stream:
        stream.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "out.csv").read_text() == "new"
    with opened("/dev/null", table=False) as stream:
        stream.write("new")
    assert Path("/dev/null").is_char_device()


def _interrupted(target: Path) -> None:
    with opened(str(target), table=False) as stream:
        stream.write("new")
        raise KeyboardInterrupt


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_labels_of_pictures_that_may_have_several() -> None:
    """JSON has them beside the predictions; CSV and table tell them alone, and say where there are none."""
    model = Model("shapes", 1)
    two = (Prediction("disc", 0.9), Prediction("square", 0.4))
    both = Result("both.png", two[:1], model, labels=two)
    none = Result("none.png", (Prediction("disc", 0.1),), model, labels=())
    stream = io.StringIO()
    JsonLines(stream).write([both, none])
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [[each["label"] for each in record["labels"]] for record in records] == [["disc", "square"], []]
    assert list(records[0]) == ["file", "predictions", "labels", "model"]
    stream = io.StringIO()
    Csv(stream).write([both, none])
    stream.seek(0)
    assert list(csv.reader(stream))[1:] == [
        ["both.png", "1", "disc", "0.9", "", "", ""],
        ["both.png", "2", "square", "0.4", "", "", ""],
        ["none.png", "", "", "", "", "", ""],
    ]
    stream = io.StringIO()
    Table(stream, None).write([both, none])
    lines = stream.getvalue().splitlines()
    assert lines[1].split() == ["both.png", "disc", "90.00%", "square", "40.00%"]
    assert lines[2].split() == ["none.png", "no", "label"]
