"""The command finds planted faults by the real network, tells nothing where nothing is wrong, and changes nothing."""

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from tests.training.check.scenes import joint_scene, scene, write_joint_scenes, write_scenes, write_table
from tests.training.conftest import call

pytestmark = [pytest.mark.keras, pytest.mark.slow]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that the tests share, for the features."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A folder with splits and one fault of each kind, and names in Unicode."""
    folder = tmp_path / "Bilder ü"
    write_scenes(folder / "train", 24)
    write_scenes(folder / "test", 4, first=100)
    train = folder / "train"
    (train / "amber" / "copy of 3.jpg").write_bytes((train / "amber" / "3.jpg").read_bytes())
    scene("blue", 5).resize((90, 90)).save(train / "blue" / "klein é.jpg", quality=60)
    ImageOps.mirror(scene("green", 101)).save(train / "green" / "leak.jpg", quality=90)
    scene("amber", 7).save(train / "green" / "two labels.png")
    scene("blue", 50).save(train / "amber" / "wrong.jpg", quality=92)
    Image.new("RGB", (160, 160), (90, 90, 90)).save(train / "blue" / "blank.png")
    Image.eval(scene("blue", 51), lambda level: level // 12).save(train / "blue" / "dark.jpg")
    scene("green", 52).save(train / "green" / "odd.jpg", "PNG")
    (train / "green" / "damaged.jpg").write_bytes((train / "green" / "1.jpg").read_bytes()[:900])
    (train / "green" / "notes.txt").write_text("not a picture")
    return folder


def test_each_fault_is_found(faulty: Path, run_folder: Path, tmp_path: Path) -> None:
    """By its kind and with what to do, in a table whose lines --apply takes; and the folder stays as it was."""
    before = sorted(path.relative_to(faulty) for path in faulty.rglob("*"))
    code, printed, errors = call(
        ["check", faulty, "--run", run_folder, "--csv", tmp_path / "found.csv", "--html", tmp_path / "found.html"]
    )
    assert code == 0, errors
    rows = list(csv.DictReader(io.StringIO((tmp_path / "found.csv").read_text(encoding="utf-8"))))
    told = {(row["path"], row["kind"], row["suggestion"]) for row in rows}
    expected = {
        ("train/green/damaged.jpg", "damaged", "leave out"),
        ("train/green/leak.jpg", "duplicate across splits", "leave out"),
        ("train/green/two labels.png", "duplicate across classes", "leave out"),
        ("train/amber/copy of 3.jpg", "exact duplicate", "leave out"),
        ("train/blue/klein é.jpg", "near duplicate", "leave out"),
        ("train/amber/wrong.jpg", "wrong label", "move to blue"),
        ("train/blue/blank.png", "blank", "leave out"),
        ("train/blue/dark.jpg", "dark", "look at"),
        ("train/green/odd.jpg", "odd file", "look at"),
    }
    assert expected <= told, expected - told
    assert {row["path"] for row in rows if row["kind"] != "outlier"} == {path for path, *_ in expected}
    assert "1 cannot be read, such as train/green/damaged.jpg" in printed
    assert "of the 12 test pictures right, with the 1 that are in the training too" in printed
    assert "Passed over files that are not pictures: 1 (.txt)." in printed
    assert sorted(path.relative_to(faulty) for path in faulty.rglob("*")) == before
    code, printed, errors = call(["check", faulty, "--apply", tmp_path / "found.csv"])
    assert code == 0, errors
    assert "--undo takes it back" in printed
    code, again, _ = call(["check", faulty, "--run", run_folder, "--json"])
    assert code == 0
    assert set(json.loads(again)["found"]) <= {"dark", "odd file", "outlier"}
    assert call(["check", faulty, "--undo"])[0] == 0
    assert sorted(path.relative_to(faulty) for path in faulty.rglob("*.jpg")) == [
        path for path in before if path.suffix == ".jpg"
    ]


def test_nothing_wrong_is_one_line(run_folder: Path, tmp_path: Path) -> None:
    """A folder in order says so, and nothing else is printed behind it; it may be read-only, its name in any script."""
    folder = write_scenes(tmp_path / "Fotos \N{CAT FACE} 写真", 24)
    folders = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    for each in folders:
        each.chmod(0o555)
    before = [each.stat().st_mtime_ns for each in folders]  # root may write all the same, and would leave a trace
    code, printed, errors = call(["check", folder, "--run", run_folder])
    for each in folders:
        each.chmod(0o755)
    assert code == 0, errors
    assert [each.stat().st_mtime_ns for each in folders] == before
    assert printed.splitlines()[-1] == f"{folder}: 72 pictures of 3 classes, and nothing is wrong with them."


def test_what_cannot_be_checked_is_told(run_folder: Path, tmp_path: Path) -> None:
    """No folder, one without classes, and one in which no picture can be read."""
    (tmp_path / "broken" / "a").mkdir(parents=True)
    (tmp_path / "broken" / "a" / "1.jpg").write_bytes(b"nothing")
    for folder, message in (
        ("missing", "No such file or directory"),
        ("broken/a", "has no subfolders"),
        ("broken", "none of the 1 pictures can be read"),
    ):
        code, _, errors = call(["check", tmp_path / folder, "--run", run_folder])
        assert code == 1
        assert message in errors.splitlines()[-1]


def test_labels_may_be_in_a_table(run_folder: Path, tmp_path: Path) -> None:
    """What is found is what is found in folders, and applied it makes another table."""
    write_scenes(tmp_path / "scenes", 12)
    scene("amber", 50).save(tmp_path / "scenes" / "blue" / "wrong.jpg", quality=92)
    files = sorted((tmp_path / "scenes").glob("*/*.jpg"))
    rows = [f"{file.relative_to(tmp_path / 'scenes')},{file.parent.name}" for file in files]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    arguments: list[str | Path] = ["check", tmp_path / "scenes", "--json", "--run", run_folder]
    code, by_folders, errors = call(arguments)
    assert code == 0, errors
    code, by_table, errors = call([*arguments, "--labels", table])
    assert code == 0, errors
    suggestions = json.loads(by_table)["suggestions"]
    assert suggestions == json.loads(by_folders)["suggestions"]
    assert "blue/wrong.jpg" in [each["path"] for each in suggestions]
    found, corrected = tmp_path / "found.csv", tmp_path / "corrected.csv"
    assert call([*arguments, "--labels", table, "--csv", found])[0] == 0
    code, printed, errors = call([*arguments, "--labels", table, "--apply", found, "--corrected", corrected])
    assert code == 0, errors
    assert json.loads(printed)["changed"] == len({each["path"] for each in suggestions})
    assert "blue/wrong.jpg,amber\n" in corrected.read_text(encoding="utf-8")
    for wrong in (["--undo"], ["--apply", found], ["--corrected", corrected]):
        with pytest.raises(SystemExit):
            call([*arguments, "--labels", table, *wrong])


def test_pictures_with_several_labels(run_folder: Path, tmp_path: Path) -> None:
    """Labels that are missing or too many, copies under other labels and leaks are told, shown, and put right."""
    folder = tmp_path / "Bilder ü"
    has = write_joint_scenes(folder, 120)
    splits = dict.fromkeys([f"{number}.jpg" for number in range(100, 120)], "test")
    for copy, original in (("copy.jpg", "105.jpg"), ("other.jpg", "7.jpg")):
        (folder / copy).write_bytes((folder / original).read_bytes())
        has[copy] = set(has[original])
    has["other.jpg"] = has["7.jpg"] ^ {"amber", "blue"}
    for name, labels, given in (("few.jpg", ("amber", "blue"), {"amber"}), ("many.jpg", ("green",), {"blue", "green"})):
        joint_scene(labels, 500 + len(labels)).save(folder / name, quality=92)
        has[name] = given
    table = write_table(tmp_path / "labels.csv", has, splits)
    arguments: list[str | Path] = ["check", folder, "--labels", table, "--run", run_folder]
    outputs: list[str | Path] = ["--csv", tmp_path / "found.csv", "--html", tmp_path / "found.html"]
    code, printed, errors = call([*arguments, *outputs])
    assert code == 0, errors
    rows = list(csv.DictReader(io.StringIO((tmp_path / "found.csv").read_text(encoding="utf-8"))))
    told = {(row["path"], row["kind"], row["suggestion"]) for row in rows if row["kind"] != "outlier"}
    expected = {
        ("copy.jpg", "duplicate across splits", "leave out"),
        ("other.jpg", "duplicate across classes", "leave out"),
        ("few.jpg", "label missing", "add blue"),
        ("many.jpg", "label too many", "remove blue"),
    }
    assert expected <= told, expected - told
    assert {path for path, *_ in told - expected} <= {"other.jpg"}, "what is a copy under other labels has wrong ones"
    assert f"{folder}: 124 pictures with any of 3 labels." in printed
    assert "1 probably has a label too many, such as many.jpg (blue is 0" in printed
    assert "a mean average precision of" in printed
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert "Probably a label missing: " in page
    assert "<strong>remove blue</strong>" in page
    corrected = tmp_path / "corrected.csv"
    code, printed, errors = call([*arguments, "--apply", tmp_path / "found.csv", "--corrected", corrected])
    assert code == 0, errors
    assert f"Wrote {corrected}, in which 4 pictures have other labels or are left out." in printed
    code, printed, errors = call(["check", folder, "--labels", corrected, "--run", run_folder, "--json"])
    assert code == 0, errors
    assert set(json.loads(printed)["found"]) <= {"outlier"}
