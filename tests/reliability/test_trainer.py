"""The trainer, killed, crowded, without room and with its pictures changed under it.

There is never half a version and never one less; a run that was killed goes on and ends with the weights of one that
was not, or one sentence says why not; nothing ends in a traceback.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from artifact import latest, validate, versions
from tests.disks import resize, unmount
from tests.drawings import drawing
from tests.reliability.campaign import Campaign
from tests.reliability.publishing import NAME, publish
from tests.training.conftest import environment

pytestmark = [pytest.mark.process, pytest.mark.slow]

SMOKE = ("--preset", "smoke", "--precision", "float32", "--cpu")
MODEL_DISKS = range(32, 480, 32)  # KiB; a version takes 400
RUN_DISKS = range(32, 768, 32)  # KiB; two checkpoints, the next one and the logs take 700


@dataclass
class Trainer:
    """A training in a process of its own, and what it has printed so far."""

    process: subprocess.Popen[str]
    errors_file: Path
    lines: list[str] = field(default_factory=list)

    def until(self, pattern: str) -> bool:
        """Read what it prints until a line matches; say whether one did before its end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if re.search(pattern, line):
                return True
        return False

    def end(self) -> int:
        """Wait for its end; return the exit code, and find out that it ended in a traceback."""
        self.until("(?!)")
        code = self.process.wait(timeout=300)
        assert "Traceback" not in self.errors, self.errors
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def printed(self) -> str:
        return "".join(self.lines)

    @property
    def errors(self) -> str:
        return self.errors_file.read_text(encoding="utf-8")


Start = Callable[..., Trainer]


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a training with these arguments; what still runs at the end is killed."""
    started: list[Trainer] = []

    def begin(*arguments: str | Path) -> Trainer:
        errors = tmp_path / f"errors-{len(started)}"
        with errors.open("w", encoding="utf-8") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "training", *SMOKE, *map(str, arguments)], cwd=root, env=environment(),
                stdout=subprocess.PIPE, stderr=stream, text=True,
            )  # fmt: skip
        started.append(Trainer(process, errors))
        return started[-1]

    yield begin
    for trainer in started:
        if trainer.process.poll() is None:
            trainer.kill()
        assert trainer.process.stdout is not None
        trainer.process.stdout.close()


def weights(models: Path, name: str = "smoke") -> bytes:
    """Return the weights of the latest version, once all that are there are validated and no draft is."""
    numbers = versions(models, name)
    assert numbers
    for number in numbers:
        validate(models / name / str(number))
    return (models / name / str(numbers[-1]) / "variables" / "variables.data-00000-of-00001").read_bytes()


@pytest.fixture(scope="module")
def epochs(request: pytest.FixtureRequest) -> int:
    """Return how long the trainings are."""
    return 24 if request.config.getoption("--whole") else 3


@pytest.fixture(scope="module")
def reference(root: Path, tmp_path_factory: pytest.TempPathFactory, epochs: int) -> bytes:
    """Return the weights of a training that nothing happened to."""
    folder = tmp_path_factory.mktemp("reference")
    places = ("--models", folder / "models", "--run", folder / "run", "--epochs", epochs)
    subprocess.run(
        [sys.executable, "-m", "training", *SMOKE, *map(str, places)], cwd=root, env=environment(), check=True,
        capture_output=True,
    )  # fmt: skip
    return weights(folder / "models")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Give a function that makes a disk of so many KiB, or changes its size; skip where mounting is not allowed."""
    folder = tmp_path / "disk"
    yield partial(resize, folder)
    if folder.is_mount():
        unmount(folder)


@pytest.mark.campaign(
    "publishing is killed before each operation on the disk in turn",
    bar="whole versions only, and nothing else is left",
)
def test_publishing_killed_at_every_step_leaves_whole_versions(campaign: Campaign, root: Path, tmp_path: Path) -> None:
    """Before each operation on the disk in turn: what is there stays, what is new is whole or not there."""
    command = [sys.executable, "-m", "tests.reliability.publishing", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    last = latest(tmp_path, NAME) or 0
    assert len(counts) > 40
    assert last == counts[-1] + 1
    drafts = list((tmp_path / NAME).glob(".draft-*"))
    for path in drafts:
        os.utime(path, (0, 0))
    publish(tmp_path)
    assert sorted(path.name for path in (tmp_path / NAME).iterdir()) == sorted(map(str, range(1, last + 2)))
    campaign.report(kills=len(counts), after_the_rename=counts[-1], drafts_removed=len(drafts))


@pytest.mark.campaign(
    "a training is killed by SIGKILL at moments of chance, and begun again",
    bar="the same weights, bit by bit",
)
def test_a_killed_training_ends_with_the_same_weights(
    campaign: Campaign, epochs: int, start: Start, tmp_path: Path, reference: bytes
) -> None:
    """SIGKILL at moments of chance, in the start, an epoch, a checkpoint or the publishing: all is there in the end."""
    chance = random.Random(0)
    models, run = tmp_path / "models", tmp_path / "run"
    arguments = ("--models", models, "--run", run, "--epochs", str(epochs))
    kept: list[int] = []
    for _ in range(campaign.size(2, 20)):
        trainer = start(*arguments)
        trainer.until(chance.choice(["^Training", "^epoch", "^epoch"]))
        time.sleep(chance.uniform(0, 1.0))
        if trainer.process.poll() is not None:
            break
        trainer.kill()
        kept.append(max((int(path.name[6:]) for path in run.glob("epoch-*")), default=0))
    trainer = start(*arguments)
    assert trainer.end() == 0, trainer.errors
    assert kept == sorted(kept)
    assert weights(models) == reference
    assert not list(run.glob("epoch-*"))
    campaign.report(kills=len(kept), epochs=epochs, kept_at_kills=" ".join(map(str, kept)))


@pytest.mark.campaign(
    "the same, while it publishes",
    bar="a whole version of the same weights",
)
def test_a_training_killed_while_it_publishes_publishes_in_the_end(
    campaign: Campaign, epochs: int, start: Start, tmp_path: Path, reference: bytes
) -> None:
    """Whatever of the publishing was done, the same command does it again from the last checkpoint."""
    chance = random.Random(1)
    models = tmp_path / "models"
    arguments = ("--models", models, "--run", tmp_path / "run", "--epochs", str(epochs))
    kills = 0
    for line in ("^Exporting", "^Measuring on", "^Drawing", "^Calibrated", "^The SavedModel")[: campaign.size(1, 5)]:
        trainer = start(*arguments)
        assert trainer.until(line), trainer.errors
        time.sleep(chance.uniform(0, 0.5))
        trainer.kill()
        kills += 1
        for number in versions(models, "smoke"):
            validate(models / "smoke" / str(number))
    trainer = start(*arguments)
    assert trainer.end() == 0, trainer.errors
    assert weights(models) == reference
    campaign.report(kills=kills, versions=len(versions(models, "smoke")))


@pytest.mark.campaign(
    "two trainings of one run folder, and two of one model's name",
    bar="the second of a run folder ends with a sentence, both of a name publish",
)
def test_two_trainings_get_in_nobodys_way(
    campaign: Campaign, epochs: int, start: Start, tmp_path: Path, reference: bytes
) -> None:
    """In one run folder the second ends with a sentence; with one model's name both publish, under two numbers."""
    models = tmp_path / "models"
    first = start("--models", models, "--run", tmp_path / "one", "--epochs", str(epochs))
    other = start("--models", models, "--run", tmp_path / "other", "--epochs", str(epochs))
    assert first.until("^Training")
    second = start("--models", models, "--run", tmp_path / "one", "--epochs", str(epochs))
    assert second.end() == 1
    message = rf"error: another training works in {tmp_path}/one \(process {first.process.pid} on .*--run folder\n$"
    assert re.search(message, second.errors)
    assert (first.end(), other.end()) == (0, 0), first.errors + other.errors
    assert versions(models, "smoke") == [1, 2]
    assert weights(models) == reference
    assert not list((models / "smoke").glob(".draft-*"))
    campaign.report(refused=1, published=2)


@pytest.mark.campaign(
    "the disk for models is full, at different points of publishing",
    bar="a sentence, nothing left, and published once there is room",
)
def test_a_full_disk_for_models_keeps_the_training(
    campaign: Campaign, epochs: int, start: Start, tmp_path: Path, reference: bytes, disk: Callable[[int], Path]
) -> None:
    """Wherever in the publishing the room ends, a sentence says so, nothing is left of it, and room is all it takes."""
    arguments = ("--run", tmp_path / "run", "--epochs", str(epochs))
    sizes = []
    for size in MODEL_DISKS if campaign.whole else (384,):
        models = disk(size)
        trainer = start("--models", models, *arguments)
        assert trainer.end() == 1
        assert re.search(r"^training: error: .*No space left on device", trainer.errors, re.MULTILINE), trainer.errors
        assert str(models) in trainer.errors
        assert list(models.iterdir()) == []
        sizes.append(size)
    trainer = start("--models", disk(4096), *arguments)
    assert trainer.end() == 0, trainer.errors
    assert weights(tmp_path / "disk") == reference
    campaign.report(sizes=len(sizes), from_KiB=sizes[0], to_KiB=sizes[-1])


@pytest.mark.campaign(
    "the disk for checkpoints is full",
    bar="a sentence, and the same weights once there is room",
)
def test_a_full_disk_for_checkpoints_costs_one_epoch(
    campaign: Campaign, epochs: int, start: Start, tmp_path: Path, reference: bytes, disk: Callable[[int], Path]
) -> None:
    """A sentence says where there is no room; with more of it the same command goes on, to the same weights."""
    reached = {}
    for size in RUN_DISKS if campaign.whole else (480,):
        run = disk(size)
        trainer = start("--models", tmp_path / "models", "--run", run, "--epochs", str(epochs))
        if trainer.end() == 0:
            break
        last = trainer.errors.splitlines()[-1]
        assert re.search(rf"^training: error: .*{run}.*(No space left on device|no room left)", last), trainer.errors
        reached[size] = max((int(path.name[6:]) for path in run.glob("epoch-*")), default=0)
    else:
        trainer = start("--models", tmp_path / "models", "--run", disk(8192), "--epochs", str(epochs))
        assert trainer.end() == 0, trainer.errors
    assert weights(tmp_path / "models") == reference
    assert list(reached.values()) == sorted(reached.values())
    campaign.report(sizes=len(reached), epochs_that_fit=" ".join(map(str, reached.values())))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder with 40 pictures of each of three shapes, no two alike."""
    for shape in ("disc", "square", "stripes"):
        folder = tmp_path / "pictures" / shape
        folder.mkdir(parents=True)
        for number in range(40):
            (folder / f"{number}.png").write_bytes(drawing(shape) + str(number).encode())
    return tmp_path / "pictures"


@pytest.mark.campaign(
    "pictures change between two starts of a run",
    bar="a sentence, and gone on with once they are as before",
)
def test_pictures_that_change_meanwhile_are_told(
    campaign: Campaign, start: Start, tmp_path: Path, pictures: Path
) -> None:
    """What was begun with them is not gone on with others: a sentence says so, and with the old ones it goes on."""
    places = ("--data", pictures, "--models", tmp_path / "models", "--run", tmp_path / "run", "--epochs", "4")
    trainer = start(*places)
    assert trainer.until("^epoch 1"), trainer.errors
    trainer.kill()
    moved = pictures / "disc" / "0.png"
    content = moved.read_bytes()
    changes = (
        lambda: moved.write_bytes(content + b"more"),
        lambda: moved.unlink(),
        lambda: moved.write_bytes(b""),
    )[: campaign.size(1, 3)]
    for change in changes:
        change()
        trainer = start(*places)
        assert trainer.end() == 1
        assert re.search(r"holds an unpublished run with other settings \(.*data .* -> ", trainer.errors)
        moved.write_bytes(content)
    trainer = start(*places)
    assert trainer.end() == 0, trainer.errors
    assert "Resuming" in trainer.printed
    campaign.report(changes_refused=len(changes))


@pytest.mark.campaign(
    "pictures go while they are read, and all of them during the training",
    bar="those that are missing are named, and the training ends well",
)
def test_pictures_that_go_while_they_are_read_or_learned_end_in_no_traceback(
    campaign: Campaign, start: Start, tmp_path: Path, pictures: Path
) -> None:
    """Some that go while they are read are left out and named; when all go during the training, it has them by then."""
    places = ("--data", pictures, "--models", tmp_path / "models", "--run", tmp_path / "run", "--epochs", "2")
    trainer = start(*places)
    while trainer.process.poll() is None and not (tmp_path / "run" / ".lock").exists():
        time.sleep(0.01)
    for number in range(3):
        (pictures / "disc" / f"{number}.png").unlink()
    assert trainer.until("^epoch 1"), trainer.errors
    left_out = re.findall(r"^Left out .*", trainer.printed, re.MULTILINE)
    shutil.rmtree(pictures)
    assert trainer.end() == 0, trainer.errors
    weights(tmp_path / "models", "pictures")
    campaign.report(left_out=len(left_out))


@pytest.mark.campaign(
    "SIGTERM while it publishes",
    bar="exit code 143 and nothing left, or published",
)
def test_a_stopped_training_leaves_no_draft(
    campaign: Campaign, epochs: int, start: Start, tmp_path: Path, reference: bytes
) -> None:
    """SIGTERM, at moments of chance from the last epoch on: exit 143 and nothing left, or published."""
    chance = random.Random(2)
    models = tmp_path / "models"
    stopped = 0
    for _ in range(campaign.size(1, 10)):
        trainer = start("--models", models, "--run", tmp_path / "run", "--epochs", str(epochs))
        assert trainer.until("^Calibrated"), trainer.errors
        time.sleep(chance.uniform(0, 3.0))
        trainer.process.send_signal(signal.SIGTERM)
        code = trainer.end()
        assert code in (0, 128 + signal.SIGTERM)
        stopped += code != 0
        assert not list(models.glob("*/.draft-*"))
    if stopped:
        trainer = start("--models", models, "--run", tmp_path / "run", "--epochs", str(epochs))
        assert trainer.end() == 0, trainer.errors
    assert weights(models) == reference
    campaign.report(stopped=stopped, versions=len(versions(models, "smoke")))
