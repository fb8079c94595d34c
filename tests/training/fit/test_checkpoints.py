"""A run folder loses an epoch at most, whatever is done to it, and is one training's at a time."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.disks import small_disk
from tests.training.conftest import environment
from training.errors import TrainingError
from training.fit.checkpoints import RunFolder, RunState

pytestmark = pytest.mark.keras

SETTINGS = {"learning_rate": 1.0}
WEIGHTS, STATE, SUMS = "checkpoint.weights.h5", "state.json", "SHA256SUMS"


@pytest.fixture
def model() -> keras.Model:
    """Return a network of one layer."""
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def save(folder: RunFolder, model: keras.Model, *epochs: int) -> None:
    """Save epochs, each with its number as every weight."""
    for epoch in epochs:
        model.set_weights([np.full(weight.shape, epoch, np.float32) for weight in model.get_weights()])
        folder.save(model, RunState(SETTINGS, {"hardware": "any"}, epoch))


def loaded(path: Path, model: keras.Model) -> tuple[int, float]:
    """Return the epoch that another process would go on from, and a weight of it."""
    folder = RunFolder(path)
    epoch = folder.state(SETTINGS, {}).epoch
    folder.load(model)
    return epoch, float(model.get_weights()[0][0, 0])


def change(file: Path, edit: Callable[[bytes], bytes]) -> None:
    file.write_bytes(edit(file.read_bytes()))


def flip(content: bytes) -> bytes:
    """Change one bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def remove(*files: Path) -> None:
    for file in files:
        file.unlink()


def make_folder(file: Path) -> None:
    """Put a folder into the place of a file."""
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "weights cut": lambda checkpoint: change(checkpoint / WEIGHTS, lambda content: content[:-100]),
    "weights empty": lambda checkpoint: change(checkpoint / WEIGHTS, lambda _: b""),
    "a bit of the weights": lambda checkpoint: change(checkpoint / WEIGHTS, flip),
    "no weights": lambda checkpoint: (checkpoint / WEIGHTS).unlink(),
    "state cut": lambda checkpoint: change(checkpoint / STATE, lambda content: content[:20]),
    "state empty": lambda checkpoint: change(checkpoint / STATE, lambda _: b""),
    "a bit of the state": lambda checkpoint: change(checkpoint / STATE, flip),
    "no state": lambda checkpoint: (checkpoint / STATE).unlink(),
    "sums empty": lambda checkpoint: change(checkpoint / SUMS, lambda _: b""),
    "sums not text": lambda checkpoint: change(checkpoint / SUMS, lambda _: b"\xff\xfe"),
    "nothing in it": lambda checkpoint: remove(*checkpoint.iterdir()),
    "a folder for the state": lambda checkpoint: make_folder(checkpoint / STATE),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_costs_one_epoch(
    model: keras.Model, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one before it is gone on from, with a notice that names the damaged one, and is followed by a whole one."""
    save(RunFolder(tmp_path), model, 1, 2, 3)
    DAMAGES[damage](tmp_path / "epoch-3")
    assert loaded(tmp_path, model) == (2, 2.0)
    assert capsys.readouterr().out.startswith(f"Passed over a checkpoint: {tmp_path}/epoch-3 ")
    save(RunFolder(tmp_path), model, 3)
    assert loaded(tmp_path, model) == (3, 3.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-2", "epoch-3"]


@pytest.mark.parametrize("document", ["[]", "1", "null", '{"epoch": 2}', '{"settings": [], "environment": {}, "x": 1}'])
def test_a_checkpoint_of_an_older_release_is_looked_at_as_well(
    model: keras.Model, tmp_path: Path, document: str
) -> None:
    """It has no sums: one that is whole is gone on from, one whose state is none is passed over."""
    save(RunFolder(tmp_path), model, 1, 2)
    for epoch in (1, 2):
        (tmp_path / f"epoch-{epoch}" / SUMS).unlink()
    assert loaded(tmp_path, model) == (2, 2.0)
    (tmp_path / "epoch-2" / STATE).write_text(document)
    assert loaded(tmp_path, model) == (1, 1.0)


def test_without_a_whole_checkpoint_a_sentence_says_so(model: keras.Model, tmp_path: Path) -> None:
    """It names the last one, what is wrong with it and how to go on; nothing is removed."""
    save(RunFolder(tmp_path), model, 1, 2)
    for epoch in (1, 2):
        DAMAGES["weights cut"](tmp_path / f"epoch-{epoch}")
    with pytest.raises(
        TrainingError, match=r"epoch-2 is damaged: .*, and there is none before it; --fresh starts over"
    ):
        RunFolder(tmp_path).state(SETTINGS, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-1", "epoch-2"]


def test_a_renamed_checkpoint_is_not_taken_for_another_epoch(model: keras.Model, tmp_path: Path) -> None:
    """A copy by the name of another epoch would skip what lies between."""
    save(RunFolder(tmp_path), model, 1, 2)
    shutil.copytree(tmp_path / "epoch-2", tmp_path / "epoch-9")
    assert loaded(tmp_path, model) == (2, 2.0)


def test_a_stray_entry_is_passed_over(model: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What only looks like a checkpoint is told, and neither read nor removed."""
    strays = ["epoch-2.bak", "epoch-3 (copy)", "epoch-", "epoch-x", "epoch-007", "epoch-²", "epoch--1"]
    for name in strays:
        (tmp_path / name).mkdir()
    (tmp_path / "epoch-8").write_text("a file")
    folder = RunFolder(tmp_path)
    save(folder, model, 1, 2)
    assert loaded(tmp_path, model) == (2, 2.0)
    printed = capsys.readouterr().out
    for name in (*strays, "epoch-8"):
        assert f"Passed over {tmp_path}/{name}, which is no checkpoint." in printed
    folder.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*strays, "epoch-8"])


def test_a_checkpoint_is_on_the_disk_before_an_older_one_goes(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, then the folder, are synced; then it is renamed, that is synced too, and only now an older one goes."""
    folder = RunFolder(tmp_path)
    save(folder, model, 1, 2)
    done: list[str] = []
    fsync, rename, rmtree = os.fsync, Path.rename, shutil.rmtree

    def note_fsync(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        done.append(f"rename {target.name}")
        return rename(path, target)

    def note_rmtree(path: Path, ignore_errors: bool = False) -> None:
        done.append(f"remove {path.name}")
        rmtree(path, ignore_errors)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    monkeypatch.setattr(shutil, "rmtree", note_rmtree)
    save(folder, model, 3)
    assert done[0] == "remove .draft"
    assert set(done[1:4]) == {f"sync {name}" for name in (WEIGHTS, STATE, SUMS)}
    assert done[4:] == ["sync .draft", "rename epoch-3", f"sync {tmp_path.name}", "remove epoch-1"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 256 KiB; skip where that is not allowed."""
    with small_disk(tmp_path / "disk", 256) as disk:
        yield disk


def test_a_full_disk_keeps_the_checkpoints_that_are_there(model: keras.Model, disk: Path) -> None:
    """The error says where and what to do, no half one is left, and with room the same command goes on."""
    folder = RunFolder(disk)
    save(folder, model, 1, 2)
    (disk / "other").write_bytes(bytes(170_000))
    with pytest.raises(TrainingError, match=rf"epoch 3 could not be saved in {disk} \(No space left on device\); make"):
        save(folder, model, 3)
    assert sorted(path.name for path in disk.iterdir()) == ["epoch-1", "epoch-2", "other"]
    assert loaded(disk, model) == (2, 2.0)
    (disk / "other").unlink()
    save(folder, model, 3)
    assert loaded(disk, model) == (3, 3.0)


@pytest.mark.process
@pytest.mark.slow
def test_two_trainings_do_not_work_in_one_folder(root: Path, tmp_path: Path) -> None:
    """The second is told which process has it. However the first ends, the folder is free."""
    code = (
        "import sys; from pathlib import Path; from training.fit.checkpoints import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked(): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=root, env=environment(), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as first:  # fmt: skip
        assert first.stdout is not None
        assert first.stdout.readline() == b"locked\n"
        with (
            pytest.raises(
                TrainingError, match=rf"another training works in {tmp_path} \(process {first.pid} on .*since"
            ),
            RunFolder(tmp_path).locked(),
        ):
            pass
        first.kill()
        first.wait()
    with RunFolder(tmp_path).locked():
        assert f"process {os.getpid()} on " in (tmp_path / ".lock").read_text()
    with RunFolder(tmp_path).locked():
        pass


def test_what_stands_in_a_checkpoint_is_read_by_others(model: keras.Model, tmp_path: Path) -> None:
    """The state is JSON, and sha256sum checks the sums."""
    save(RunFolder(tmp_path), model, 1)
    assert json.loads((tmp_path / "epoch-1" / STATE).read_text())["epoch"] == 1
    subprocess.run(
        ["sha256sum", "--check", "--strict", SUMS], cwd=tmp_path / "epoch-1", check=True, capture_output=True
    )
