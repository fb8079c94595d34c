"""A folder of pictures is a data set: sizes, splits, faults and what is too little."""

import hashlib
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from artifact import Input
from artifact.reviewed import reviewed_name
from tests.training.check.scenes import scene, write_scenes
from training.data import pictures
from training.data.dataset import Dataset, Split
from training.data.decoding import read
from training.data.pictures import Reading, load, middle_side, model_name
from training.errors import TrainingError
from training.names import command

READING = Reading(size=(8, 8))


def write(folder: Path, size: tuple[int, int] = (8, 8), **counts: int) -> Path:
    """Write so many pictures of each class, each of a colour of its own; ``size`` is width and height."""
    colour = 0
    for label, count in counts.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            colour += 1
            Image.new("RGB", size, (colour % 256, colour // 256, len(label))).save(folder / label / f"{number}.png")
    return folder


def damage(folder: Path, *names: str) -> None:
    """Cut files short."""
    for name in names:
        (folder / name).write_bytes((folder / name).read_bytes()[:40])


def counts(dataset: Dataset) -> dict[str, list[int]]:
    """Return how many pictures of each class the splits have."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: np.bincount(split.classes, minlength=len(dataset.labels)).tolist() for name, split in splits.items()}


def same(one: Dataset, other: Dataset) -> bool:
    """Say whether all splits of two data sets have the same pictures and classes in the same order."""
    return all(
        np.array_equal(getattr(ours, part), getattr(theirs, part))
        for ours, theirs in ((one.train, other.train), (one.validation, other.validation), (one.test, other.test))
        for part in ("images", "classes")
    )


def test_a_folder_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tenth of each class is the test and a tenth of the rest validation; every picture is there once."""
    folder = write(tmp_path / "pets", cat=100, dog=40)
    dataset = load(folder, None, None, READING)
    assert (dataset.name, dataset.labels) == ("pets", ("cat", "dog"))
    assert counts(dataset) == {"train": [81, 32], "validation": [9, 4], "test": [10, 4]}
    assert dataset.picture == Input(height=8, width=8)
    splits = (dataset.train, dataset.validation, dataset.test)
    found = {
        tuple(image[0, 0]): number
        for split in splits
        for image, number in zip(split.images, split.classes, strict=True)
    }
    expected = {
        tuple(read(path, dataset.picture)[0, 0]): dataset.labels.index(path.parent.name)
        for path in folder.glob("*/*.png")
    }
    assert found == expected
    part = "10% of each class and at least one where there are two"
    assert f"has no test/, so 14 pictures, {part}, are kept for the test" in capsys.readouterr().out


def test_pictures_that_came_back_from_the_service_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training says how many of its pictures people have labelled in review, in all splits; else nothing of it."""
    folder = write(tmp_path / "pets", cat=20, dog=20)
    load(folder, None, None, READING)
    assert "review" not in capsys.readouterr().out
    for label, number in (("cat", 1), ("cat", 2), ("dog", 3)):
        file = folder / label / f"{number}.png"
        file.rename(file.with_name(reviewed_name(f"{number}" * 64, ".png")))
    load(folder, None, None, READING)
    assert "3 of the 40 pictures came back from the service and were labelled in review." in capsys.readouterr().out


def test_pictures_keep_the_names_of_their_files_and_faults_are_told(tmp_path: Path) -> None:
    """Every picture is the one in the file with its name, in every split; what cannot be read is left out by name."""
    folder = write(tmp_path / "pets", cat=30, dog=30)
    damage(folder, "cat/3.png", "dog/7.png")
    (folder / "cat" / "notes.txt").touch()
    dataset = load(folder, None, None, READING)
    names: list[str] = []
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.names is not None
        for name, image in zip(split.names, split.images, strict=True):
            assert np.array_equal(image, read(folder / name, dataset.picture))
        names += split.names
    assert sorted(names) == sorted(
        f"{label}/{number}.png" for label, fault in (("cat", 3), ("dog", 7)) for number in range(30) if number != fault
    )
    assert {each.name for each in dataset.left_out} == {"cat/3.png", "dog/7.png"}
    assert all("damaged" in each.reason for each in dataset.left_out)
    assert dataset.passed_over == ("Passed over files that are not pictures: 1 (.txt).",)


@pytest.mark.parametrize(("most", "told"), [(4095, True), (65535, False)])
def test_sixteen_bits_of_which_few_are_used_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], most: int, *, told: bool
) -> None:
    """The levels of an X-ray with 12 bits, saved as they are, become 16 of 256: its trainer hears what to do."""
    rng = np.random.default_rng(0)
    for number in range(8):
        file = tmp_path / "xrays" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, most, (32, 32)).astype(np.uint16)).save(file)
    load(tmp_path / "xrays", None, None, READING)
    assert ("Most pictures are nearly black" in capsys.readouterr().out) == told


def test_given_splits(tmp_path: Path) -> None:
    """train/, val/ and test/ are taken as they are."""
    write(tmp_path / "train", cat=20, dog=10)
    write(tmp_path / "validation", cat=3, dog=2)
    write(tmp_path / "test", dog=4)
    dataset = load(tmp_path, None, None, READING)
    assert counts(dataset) == {"train": [20, 10], "validation": [3, 2], "test": [0, 4]}
    everything = load(tmp_path, 0, None, READING)
    assert counts(everything) == {"train": [23, 12], "validation": [0, 0], "test": [0, 4]}
    assert everything.digest() == dataset.digest()
    with pytest.raises(TrainingError, match=r"6 pictures of .* at most 5, since val/ has no more"):
        load(tmp_path, 6, None, READING)


def test_train_and_val_without_test(tmp_path: Path) -> None:
    """Without test/, it is a tenth of train/; val/ stays what it is called."""
    write(tmp_path / "train", cat=20, dog=10)
    write(tmp_path / "val", cat=3, dog=2)
    assert counts(load(tmp_path, None, None, READING)) == {"train": [18, 9], "validation": [3, 2], "test": [2, 1]}


def test_train_and_test_without_val(tmp_path: Path) -> None:
    """Without val/, validation is a tenth of train/."""
    write(tmp_path / "train", cat=40, dog=20)
    write(tmp_path / "test", cat=3, dog=2)
    assert counts(load(tmp_path, None, None, READING)) == {"train": [36, 18], "validation": [4, 2], "test": [3, 2]}


def test_the_last_of_the_same_pictures_are_held_out(tmp_path: Path) -> None:
    """Another number of validation images moves the boundary and no picture, so that int8 finds what was held out."""
    folder = write(tmp_path, cat=50, dog=30)
    first, second = load(folder, 12, None, READING), load(folder, 30, None, READING)
    assert first.digest() == second.digest()
    assert counts(second)["validation"] == [19, 11]
    np.testing.assert_array_equal(first.validation.images, second.validation.images[-12:])
    again = load(folder, len(first.validation), first.picture, Reading(size=(4, 4)))
    assert same(first, again)


def test_the_digest_is_of_the_files(tmp_path: Path) -> None:
    """Another size, rule or name of the folder is no other data; another file, label or test is."""
    folder = write(tmp_path / "pets" / "train", size=(20, 16), cat=20, dog=10).parent
    write(folder / "test", size=(20, 16), cat=3, dog=2)
    digest = load(folder, None, None, READING).digest()
    assert load(folder, 3, None, Reading(size=(16, 12), resize="stretch")).digest() == digest
    renamed = folder.rename(tmp_path / "animals")
    assert load(renamed, None, None, READING).digest() == digest
    for begin, end in (("train/cat/1.png", "train/dog/1a.png"), ("test/cat/0.png", "train/cat/test.png")):
        (renamed / begin).rename(renamed / end)
        assert load(renamed, None, None, READING).digest() != digest
        (renamed / end).rename(renamed / begin)
    assert load(renamed, None, None, READING).digest() == digest
    Image.open(renamed / "train/cat/1.png").save(renamed / "train/cat/1.png", compress_level=0)
    changed = load(renamed, None, None, READING)
    assert changed.digest() != digest, "the pixels are the same, and the file is not"


def test_an_unreadable_picture_is_not_in_the_digest(tmp_path: Path) -> None:
    """The data set is that of the files that can be read, and the digests stay with their pictures."""
    folder = write(tmp_path / "data", cat=20, dog=20)
    damage(folder, "cat/3.png", "dog/11.png")
    dataset = load(folder, None, None, READING)
    for name in ("cat/3.png", "dog/11.png"):
        (folder / name).write_bytes(b"no picture either")
    assert load(folder, None, None, READING).digest() == dataset.digest()
    digests = {hashlib.sha256(path.read_bytes()).digest(): path for path in folder.glob("*/*.png")}
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.files is not None
        for image, digest in zip(split.images, split.files, strict=True):
            np.testing.assert_array_equal(image, read(digests[digest.tobytes()], dataset.picture))


def test_every_class_keeps_a_picture_to_train_on(tmp_path: Path) -> None:
    """The most that can be held out leaves one picture of each class; one more is an error that says so."""
    folder = write(tmp_path, cat=20, dog=2, fox=1)
    assert counts(load(folder, None, None, READING)) == {
        "train": [16, 1, 1],
        "validation": [2, 0, 0],
        "test": [2, 1, 0],
    }
    assert counts(load(folder, 17, None, READING))["train"] == [1, 1, 1]
    with pytest.raises(TrainingError, match=r"18 pictures of .* at most 17, since each class keeps one"):
        load(folder, 18, None, READING)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pictures", "least", "held_out"), [(400, 50, 50), (200, 50, 45), (40, 50, 9), (1_000, 50, 90), (1_000, 0, 90)]
)
def test_more_are_held_out_where_a_tenth_is_too_few(tmp_path: Path, pictures: int, least: int, held_out: int) -> None:
    """They are as many as it takes to judge by, but no more than a quarter; of many pictures a tenth does."""
    folder = write(tmp_path, size=(2, 2), cat=pictures // 2, dog=pictures // 2)
    dataset = load(folder, None, None, Reading(size=(2, 2), least_held_out=least))
    assert len(dataset.validation) == held_out
    assert len(load(folder, 3, None, Reading(size=(2, 2), least_held_out=least)).validation) == 3


def test_a_split_for_validation_is_taken_as_it_is(tmp_path: Path) -> None:
    """val/ is what its maker wants to judge by, however many pictures that are."""
    write(tmp_path / "train", cat=200, dog=200)
    write(tmp_path / "val", cat=3, dog=2)
    assert len(load(tmp_path, None, None, Reading(size=(8, 8), least_held_out=50)).validation) == 5


def test_the_middle_side_is_the_shorter_one_of_the_middle_picture(tmp_path: Path) -> None:
    """Of readable pictures to train on; where none can be read, it is left open."""
    for number, size in enumerate([(20, 30), (90, 40), (50, 70), (300, 200)]):
        write(tmp_path / "train", size=size, **{f"class{number}": 1})
    write(tmp_path / "test", size=(500, 500), class0=5)
    assert middle_side(tmp_path, Reading()) == 40
    for number in (0, 1):
        (tmp_path / "train" / f"class{number}" / "0.png").write_bytes(b"no picture")
    assert middle_side(tmp_path, Reading()) == 50
    for number in (2, 3):
        (tmp_path / "train" / f"class{number}" / "0.png").write_bytes(b"no picture")
    assert middle_side(tmp_path, Reading()) is None
    with pytest.raises(TrainingError):
        middle_side(tmp_path / "train" / "class0", Reading())


def test_two_hundred_classes(tmp_path: Path) -> None:
    """Classes beyond a hundred, with three pictures each, are all learned and all tested."""
    folder = write(tmp_path, size=(2, 2), **{f"class{number:03}": 3 for number in range(200)})
    dataset = load(folder, None, None, READING)
    assert len(dataset.labels) == 200
    assert set(counts(dataset)["test"]) == {1}
    assert min(counts(dataset)["train"]) == 1
    assert len(dataset.validation) == 40


def test_single_pictures_leave_nothing_to_test(tmp_path: Path) -> None:
    """One picture in each class is too few, and the error says so."""
    with pytest.raises(TrainingError, match="one picture in each class, so none is left for the test"):
        load(write(tmp_path, cat=1, dog=1), None, None, READING)


def test_unreadable_pictures_are_listed_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is named with its fault, and the rest is the data set that it would be without them."""
    folder = write(tmp_path / "data", cat=60, dog=40)
    whole = load(folder, 0, None, READING)
    damage(folder, "cat/5.png", "dog/7.png", "dog/30.png")
    dataset = load(folder, 0, None, READING)
    printed = capsys.readouterr().out
    assert "Left out 3 of 100 pictures, since they cannot be read:" in printed
    for name in ("cat/5.png", "dog/7.png", "dog/30.png"):
        assert f"  {folder / name}: " in printed
    assert sum(sum(numbers) for numbers in counts(dataset).values()) == 97
    for part in ("train", "test"):
        pixels = {image.tobytes() for image in getattr(whole, part).images}
        assert {image.tobytes() for image in getattr(dataset, part).images} <= pixels
    with pytest.raises(TrainingError, match="more than 2% of the 100 pictures"):
        load(folder, 0, None, Reading(size=(8, 8), max_unreadable=0.02))


def test_classes_stay_with_their_pictures_where_some_are_left_out(tmp_path: Path) -> None:
    """Closing the gaps of unreadable pictures mixes no labels up."""
    folder = write(tmp_path, a=30, bb=30, ccc=30)
    damage(folder, *(f"{label}/{number}.png" for label in ("a", "bb", "ccc") for number in (3, 11)))
    dataset = load(folder, None, None, READING)
    for split in (dataset.train, dataset.validation, dataset.test):
        assert (split.images[:, 0, 0, 2] == split.classes + 1).all()  # blue is the length of the label


def test_a_class_without_a_readable_picture_is_an_error(tmp_path: Path) -> None:
    """Training goes on only where every label has a picture."""
    folder = write(tmp_path, cat=20, dog=1)
    damage(folder, "dog/0.png")
    with pytest.raises(TrainingError, match="no picture to train on of dog can be read"):
        load(folder, None, None, READING)


@pytest.mark.parametrize(
    ("width", "height", "side"),
    [(20, 15, 32), (64, 50, 64), (90, 300, 96), (500, 375, 224), (150, 140, 128), (1200, 900, 224)],
)
def test_the_size_follows_from_the_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], width: int, height: int, side: int
) -> None:
    """It is the nearest of a few sizes to the middle of the shorter sides, one odd picture aside, and is told."""
    write(tmp_path, size=(width, height), cat=4, dog=3)
    Image.new("RGB", (1, 3000)).save(tmp_path / "cat" / "odd.png")
    dataset = load(tmp_path, None, None, Reading(resize="stretch"))
    assert dataset.picture == Input(side, side, "stretch")
    assert dataset.input_shape == (side, side, 3)
    printed = capsys.readouterr().out
    assert f"brought to {side}x{side} pixels (stretch)" in printed
    assert f"has {min(width, height)}; --image-size" in printed


def test_the_input_of_a_version_decides(tmp_path: Path) -> None:
    """For a published version, size, rule and filter are those of its metadata, whatever else is said."""
    folder = write(tmp_path, size=(30, 20), cat=5, dog=5)
    picture = Input(height=16, width=24, resize="stretch", interpolation="lanczos")
    dataset = load(folder, None, picture, READING)
    assert dataset.picture == picture
    assert dataset.input_shape == (16, 24, 3)


def test_pictures_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file in the folder given, they are the same data set."""
    folder = write(tmp_path / "data", cat=20, dog=20)
    damage(folder, "cat/3.png")
    expected = load(folder, None, None, READING)
    monkeypatch.setattr("training.data.storage.free_memory", lambda: 1000)
    found = load(folder, None, None, Reading(size=(8, 8), cache=tmp_path / "cache"))
    assert (tmp_path / "cache").is_dir()
    assert same(found, expected)
    assert found.digest() == expected.digest()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("pets", "pets"), ("My pets (2024)", "My-pets--2024-"), (".hidden", "hidden"), ("Katzen-Größe", "Katzen-Größe"),
     ("...", "pictures")],
)  # fmt: skip
def test_the_models_name_is_the_folders(name: str, expected: str) -> None:
    """What may not be in a model's name becomes a hyphen, and where nothing is left, it is called pictures."""
    assert model_name(Path("/data") / name) == expected


def test_the_name_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``.`` and ``..`` stand for folders that have names."""
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "pets" / "cat")
    assert model_name(Path()) == "cat"
    assert model_name(Path("..")) == "pets"
    assert pictures.model_name(Path("/")) == "pictures"


def digests(split: Split) -> list[bytes]:
    """Return the digests of the files of a split."""
    assert split.files is not None
    return [digest.tobytes() for digest in split.files]


def test_commands_that_are_printed_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the folder is called, a shell takes it for one name."""
    folder = write_scenes(tmp_path / "my cats & dogs", 8)
    ImageOps.mirror(scene("amber", 0)).save(folder / "amber" / "copy.png")
    load(folder, None, None, Reading(size=(16, 16)))
    check = capsys.readouterr().out.partition(f"; {command()} check ")[2].partition(" shows them")[0]
    assert shlex.split(check) == [str(folder)]


@pytest.mark.slow
def test_near_duplicates_are_never_on_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Resized and mirrored copies are learned; what is held out and tested with has none, at any size and share."""
    folder = write_scenes(tmp_path / "scenes", 40)
    for label in ("amber", "blue"):
        for number in range(12):
            ImageOps.mirror(scene(label, number).resize((120, 120))).save(folder / label / f"copy-{number}.jpg")
    readings = [Reading(size=(side, side)) for side in (16, 48)]
    datasets = [load(folder, held_out, None, reading) for held_out in (None, 20) for reading in readings]
    assert f"48 pictures are there more than once, or nearly; {command()} check" in capsys.readouterr().out
    twice = {
        hashlib.sha256(path.read_bytes()).digest()
        for label in ("amber", "blue")
        for number in range(12)
        for path in (folder / label / f"{number}.jpg", folder / label / f"copy-{number}.jpg")
    }
    for dataset in datasets:
        for split in (dataset.validation, dataset.test):
            assert not twice & set(digests(split))
        learned = digests(dataset.train) + digests(dataset.validation)
        assert dataset.groups is not None
        together = {group for file, group in zip(learned, dataset.groups, strict=True) if file in twice}
        assert len(together) == 24
        assert len(np.unique(dataset.groups)) == len(learned) - 24
        assert dataset.digest() == datasets[0].digest()
        assert digests(dataset.test) == digests(datasets[0].test)
    assert counts(datasets[0]) == {"train": [42, 42, 33], "validation": [5, 5, 3], "test": [5, 5, 4]}


def test_pictures_change_places_with_their_files(tmp_path: Path) -> None:
    """After near duplicates were moved, each picture still is that of its digest and its class."""
    folder = write_scenes(tmp_path / "scenes", 12)
    for number in range(8):
        scene("blue", number).resize((100, 100)).save(folder / "blue" / f"copy-{number}.jpg")
    dataset = load(folder, None, None, READING)
    files = {hashlib.sha256(path.read_bytes()).digest(): path for path in folder.glob("*/*.jpg")}
    for split in (dataset.train, dataset.validation, dataset.test):
        for image, class_, digest in zip(split.images, split.classes, digests(split), strict=True):
            path = files.pop(digest)
            assert path.parent.name == dataset.labels[class_]
            assert np.array_equal(image, read(path, dataset.picture))
    assert not files


def test_leaks_between_given_splits_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was given stays as it is, so the reader is told what it does to the accuracy."""
    write_scenes(tmp_path / "train", 10)
    write_scenes(tmp_path / "test", 5, first=8)
    load(tmp_path, None, None, READING)
    printed = capsys.readouterr().out
    assert (
        f"; 6 are held out and in the training, so what is measured on them is too good; {command()} check" in printed
    )
