"""``predict`` classifies files as the service does, and goes past those that cannot be read."""

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifact import Metadata, validate
from service.inference.decoding import Decoder
from tests.models import copy, metadata
from tests.training.conftest import call
from training.commands.predict import classify, find
from training.data.dataset import Pixels
from training.evaluation.inference import Outputs, openvino_predict

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder with a picture of each colour, of some size and kind, and with files that are none."""
    folder = tmp_path / "pictures"
    (folder / "more" / ".hidden").mkdir(parents=True)
    for name, colour, size in (
        ("a.jpg", "red", (40, 30)),
        ("more/b.PNG", "green", (32, 32)),
        ("c.webp", "blue", (9, 70)),
    ):
        Image.new("RGB", size, COLOURS[colour]).save(folder / name)
    Image.new("RGB", (32, 32), COLOURS["red"]).save(folder / "more" / ".hidden" / "d.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_is_its_pictures_at_any_depth(pictures: Path, tmp_path: Path) -> None:
    """As a training takes them, links that lead back included; a file that is named counts as it is."""
    (pictures / "more" / "loop").symlink_to(pictures)
    assert [path.relative_to(pictures).as_posix() for path in find(pictures)] == ["a.jpg", "c.webp", "more/b.PNG"]
    (pictures / "more" / "elsewhere").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.jfif").touch()
    assert find(pictures)[-1] == pictures / "more" / "elsewhere" / "d.jfif"
    assert find(pictures / "notes.txt") == [pictures / "notes.txt"]
    assert find(tmp_path / "missing") == [tmp_path / "missing"]


def test_answers_keep_their_files_over_several_batches(tmp_path: Path) -> None:
    """With more files than a batch holds and bad ones among them, each answer belongs to its file."""
    files = [tmp_path / f"{number}.png" for number in range(150)]
    for number, file in enumerate(files):
        if number % 7:
            Image.new("RGB", (2, 2), (number, 0, 0)).save(file)

    def answer(images: Pixels) -> Outputs:
        assert 1 <= len(images) <= 64
        red = images[:, 0, 0, 0].astype(np.float32)
        return {"probabilities": np.stack([red, 255 - red], axis=1)}

    small: Metadata = metadata("colours", ("red", "dark"), side=2)
    results = list(classify(files, small, answer, top=2))
    assert [result.file for result in results] == files
    for number, result in enumerate(results):
        if number % 7:
            assert dict(result.predictions) == {"red": number, "dark": 255 - number}
            assert result.predictions[0][1] >= result.predictions[1][1]
        else:
            assert (result.error, result.predictions) == ("unreadable", ())


@pytest.mark.process
def test_a_table_with_a_line_for_each_file(published: Path, pictures: Path) -> None:
    """Below a head stand name, label and probability, and the exit code is 0."""
    code, printed, errors = call(["predict", str(published), str(pictures)])
    assert (code, errors) == (0, "")
    head, *lines = printed.splitlines()
    assert head.split() == ["file", "label", "probability"]
    assert [(line.split()[0], line.split()[1]) for line in lines] == [
        (f"{pictures}/a.jpg", "red"),
        (f"{pictures}/c.webp", "blue"),
        (f"{pictures}/more/b.PNG", "green"),
    ]
    assert len({line.index(line.split()[1]) for line in lines} | {head.index("label")}) == 1
    assert all(90 < float(line.split()[2].rstrip("%")) <= 100 for line in lines)


@pytest.mark.process
def test_json_lines_hold_what_the_service_would_answer(published: Path, pictures: Path) -> None:
    """Each line has the client's keys, and the numbers of the pixels that the service's decoder makes of the file."""
    code, printed, _ = call(["predict", str(published), str(pictures), "--json", "--top", "2"])
    assert code == 0
    record = validate(published)
    decoder, predict = Decoder(10**6, 10**9), openvino_predict(published)
    for line in printed.splitlines():
        found = json.loads(line)
        assert found["model"] == {"name": "colours", "version": 1}
        pixels = decoder.decode(Path(found["file"]).read_bytes(), record.input, deadline=time.monotonic() + 60)
        row = predict(pixels[np.newaxis])[0]
        best = np.argsort(-row)[:2]
        assert found["predictions"] == [
            {"label": record.labels[index], "probability": pytest.approx(float(row[index]))} for index in best
        ]


@pytest.mark.process
def test_a_picture_unlike_those_of_the_training_is_told(published: Path, pictures: Path, tmp_path: Path) -> None:
    """Where the version has a threshold, a black picture is not familiar: in JSON, and behind its line in the table."""
    version = copy(published, tmp_path, 1, threshold=4.0)
    Image.new("RGB", (32, 32)).save(pictures / "black.png")
    _, printed, _ = call(["predict", str(version), str(pictures), "--json"])
    familiar = {Path(line["file"]).name: line["familiar"] for line in map(json.loads, printed.splitlines())}
    assert familiar == {"a.jpg": True, "b.PNG": True, "black.png": False, "c.webp": True}
    _, printed, _ = call(["predict", str(version), str(pictures)])
    assert [line for line in printed.splitlines() if line.endswith("%  unfamiliar")] == [
        line for line in printed.splitlines() if "black.png" in line
    ]


@pytest.mark.process
def test_bad_files_are_told_and_the_others_answered(published: Path, pictures: Path, tmp_path: Path) -> None:
    """What is damaged, missing, empty or no picture is listed with the reason, and the exit code is 1."""
    (tmp_path / "empty").mkdir()
    damaged = pictures / "damaged.png"
    damaged.write_bytes((pictures / "more" / "b.PNG").read_bytes()[:40])
    named = [pictures, tmp_path / "missing.png", tmp_path / "empty", pictures / "notes.txt"]
    code, printed, errors = call(["predict", str(published), *map(str, named), "--json"])
    assert code == 1
    failed = {
        Path(line["file"]).name: line["message"] for line in map(json.loads, printed.splitlines()) if "error" in line
    }
    assert failed.keys() == {"damaged.png", "missing.png", "empty", "notes.txt"}
    assert len(printed.splitlines()) == 7
    first, *others = errors.splitlines()
    assert first == "4 of 7 failed:"
    assert {line.strip() for line in others} == {f"{path}: {failed[path.name]}" for path in (damaged, *named[1:])}
    assert failed["missing.png"] == "No such file or directory"


@pytest.mark.process
def test_names_do_no_harm_to_a_terminal(published: Path, tmp_path: Path) -> None:
    """Control characters and bytes that are no text come out as a mark in the table, and in JSON as they are."""
    content = io.BytesIO()
    Image.new("RGB", (32, 32), COLOURS["red"]).save(content, "PNG")
    file = tmp_path / "a\x1b[31m\udcff.png"
    file.write_bytes(content.getvalue())
    _, printed, _ = call(["predict", str(published), str(file)])
    assert "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}.png" in printed
    _, printed, _ = call(["predict", str(published), str(file), "--json"])
    assert printed.isascii()
    assert json.loads(printed)["file"] == str(file)
