"""The model folder as it is while somebody copies, loses or damages what is in it: the last good version answers."""

import ctypes
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from artifact.layout import METADATA
from tests.models import copy
from tests.reliability.campaign import Campaign
from tests.reliability.others import Others
from tests.service.running import RunningService, start, wait_for

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timing]

BAR = "every request is answered by a good version; a version that is published afterwards is served"
_PR_CAPBSET_DROP = 24
_CAPABILITIES = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root reads what nobody may
_LOOKS = 0.5  # seconds, in which the service looks at the folder several times

Harm = Callable[[Path, Path, random.Random], None]
"""Does harm to a model's folder, the second argument; the first is a version that is good."""


def _files(version: Path) -> list[Path]:
    return sorted(path for path in version.rglob("*") if path.is_file())


def _half_copied(good: Path, model: Path, draw: random.Random) -> None:
    """Copy some files, and of the next one a part."""
    files = _files(good)
    draw.shuffle(files)
    for number, file in enumerate(files[: draw.randrange(1, len(files))]):
        target = model / "1000" / file.relative_to(good)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes()
        target.write_bytes(content[: draw.randrange(len(content))] if number == 0 else content)


def _damaged(good: Path, model: Path, draw: random.Random) -> None:
    """Change bytes of one file."""
    shutil.copytree(good, model / "1000")
    file = draw.choice([path for path in _files(model / "1000") if path.stat().st_size])
    content = bytearray(file.read_bytes())
    for _ in range(draw.randint(1, 20)):
        content[draw.randrange(len(content))] ^= draw.randint(1, 255)
    file.write_bytes(content)


def _damaged_in_place(_: Path, model: Path, draw: random.Random) -> None:
    """Change bytes of the version that is served."""
    for version in list(model.iterdir()):
        for file in _files(version):
            content = file.read_bytes()
            file.write_bytes(content[: draw.randrange(len(content) + 1)] + b"?")


def _closed(good: Path, model: Path, draw: random.Random) -> None:
    """Publish what may not be read: all of it, or one file."""
    shutil.copytree(good, model / "1000")
    draw.choice([model / "1000", *_files(model / "1000")]).chmod(0)


def _closed_above(_: Path, model: Path, draw: random.Random) -> None:
    """Close the folder of the model, or that of all models."""
    draw.choice([model, model.parent]).chmod(0)


def _removed(_: Path, model: Path, draw: random.Random) -> None:
    """Remove the model, or all models."""
    shutil.rmtree(draw.choice([model, model.parent]))


def _file_instead(_: Path, model: Path, draw: random.Random) -> None:
    """Put a file where a folder was."""
    folder = draw.choice([model, model.parent])
    shutil.rmtree(folder)
    folder.write_text("nothing to see")


def _linked_to_nowhere(_: Path, model: Path, draw: random.Random) -> None:
    """Put a link to nowhere, or to itself, in the place of a version or of the model."""
    link = draw.choice([model / "1000", model])
    if link.exists():
        shutil.rmtree(link)
    link.symlink_to(draw.choice(["nowhere", link.name]))


def _with_a_pipe(good: Path, model: Path, draw: random.Random) -> None:
    """Put a FIFO, which nobody writes to, in the place of a file."""
    shutil.copytree(good, model / "1000")
    file = draw.choice([*_files(model / "1000"), model / "1000" / METADATA])
    file.unlink()
    os.mkfifo(file)


def _with_the_root(good: Path, model: Path, draw: random.Random) -> None:
    """Put a link to the root of the file system in the place of a folder of a version."""
    shutil.copytree(good, model / "1000")
    folder = model / "1000" / draw.choice(["variables", "assets.extra"])
    shutil.rmtree(folder)
    folder.symlink_to("/")


def _endless(good: Path, model: Path, draw: random.Random) -> None:
    """Let a file be of a terabyte that is not there, or without an end."""
    shutil.copytree(good, model / "1000")
    file = draw.choice([*_files(model / "1000"), model / "1000" / METADATA])
    if draw.random() < 0.5:
        os.truncate(file, 2**40)
    else:
        file.unlink()
        file.symlink_to("/dev/zero")


def _nonsense(good: Path, model: Path, draw: random.Random) -> None:
    """Let the metadata be something else than what it should be."""
    shutil.copytree(good, model / "1000")
    texts = ("", "null", "[]", "{" * 100_000, '{"format": 1e999}', "\0" * 1000, '{"labels": ' + "[" * 100_000)
    (model / "1000" / METADATA).write_text(draw.choice(texts))


def _crowded(good: Path, model: Path, draw: random.Random) -> None:
    """Let there be hundreds of names that are no version's, and files in the place of versions."""
    for number in range(300):
        (model / draw.choice((f"v{number}", f".{number}", f"0{number}", f"-{number}"))).mkdir(exist_ok=True)
        (model / f"{2000 + number}").touch()
    (model.parent / "lost+found").mkdir(mode=0)


HARMS: Mapping[str, Harm] = {
    "half copied": _half_copied,
    "damaged": _damaged,
    "damaged while it is served": _damaged_in_place,
    "not to be read": _closed,
    "closed": _closed_above,
    "removed": _removed,
    "a file": _file_instead,
    "a link to nowhere": _linked_to_nowhere,
    "with a pipe": _with_a_pipe,
    "with a link to the root": _with_the_root,
    "endless": _endless,
    "of nonsense": _nonsense,
    "among hundreds of others": _crowded,
}


@pytest.fixture
def running(models: Path, tmp_path: Path) -> Iterator[RunningService]:
    """A service that may read what others may, as one does that is not root's, and whose clock can be set."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(_CLOCK.format(file=str(tmp_path / "clock")), encoding="utf-8")
    environment = {
        "MODEL_DIR": str(models),
        "MODEL_POLL_SECONDS": "0.1",
        "DRAIN_SECONDS": "0",
        "PYTHONPATH": str(hook),
    }
    with ExitStack() as stack:
        running = start(environment, before_exec=_obey_modes)
        stack.callback(running.kill)
        running.wait_until_ready()
        yield running


_CLOCK = """
import pathlib, time
real, file = time.time, pathlib.Path({file!r})

def moved():
    return real() + (float(file.read_text()) if file.exists() else 0.0)

time.time = moved
time.time_ns = lambda: int(moved() * 1e9)
"""


def _obey_modes() -> None:
    """Give up what lets root read everything, for this process and all after it."""
    for capability in _CAPABILITIES if os.geteuid() == 0 else ():
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.mark.campaign("versions, their model, or all models are " + ", ".join(HARMS) + ", while others ask", bar=BAR)
def test_model_folder(campaign: Campaign, running: RunningService, models: Path, published: Path) -> None:
    """After each harm the folder is made good again, with another version, as people do."""
    draw = random.Random(23)
    version, longest = 1, 0.0
    harms = list(HARMS.items()) * campaign.size(1, 20)
    with Others(running.url, per_connection=20) as others:
        for name, harm in harms:
            harm(published, models / "colours", draw)
            time.sleep(_LOOKS)
            assert running.get("/health/ready").status_code == 200, name
            _clear(models)
            version += 1
            copy(published, models, version, _labels(version))
            longest = max(longest, _seconds_until_served(running, version, name))
    campaign.report(
        harms=len(harms),
        **others.figures(),
        served_after_at_most_s=longest,
    )
    assert others.lost == []
    assert {answer.version for answer in others.answers} <= {*range(1, version + 1)}
    assert [answer for answer in others.answers if answer.label != _labels(answer.version)[0]] == []
    assert "Traceback" not in running.log()


@pytest.mark.campaign("the clock is set back and forth by days, and a version is published each time", bar=BAR)
def test_clock(campaign: Campaign, running: RunningService, models: Path, published: Path, tmp_path: Path) -> None:
    """No deadline, poll or age goes by the time of day, as Python tells it (the C library's clock is not set)."""
    days = campaign.size(2, 20)
    with Others(running.url, per_connection=20) as others:
        for version in range(2, days + 2):
            (tmp_path / "draft").write_text(str(86400.0 * version * (-1) ** version))
            (tmp_path / "draft").rename(tmp_path / "clock")
            time.sleep(_LOOKS)
            copy(published, models, version, _labels(version))
            _seconds_until_served(running, version, f"clock {version}")
    campaign.report(times_set=days, **others.figures())
    assert others.lost == []
    assert others.failed_probes() == []
    assert "Traceback" not in running.log()


def _clear(models: Path) -> None:
    """Remove all there is in the model folder, however it is."""
    if models.exists():
        subprocess.run(["chmod", "-R", "u+rwX", models], check=True)
        subprocess.run(["rm", "-r", models], check=True)
    models.mkdir(mode=0o755)


def _labels(version: int) -> tuple[str, ...]:
    """Return the labels that tell a version from the one before."""
    return ("cherry", "grass", "sky") if version % 2 == 0 else ("red", "green", "blue")


def _seconds_until_served(running: RunningService, version: int, after: str) -> float:
    """Wait until ``version`` is served; return the seconds."""
    started = time.monotonic()
    wait_for(lambda: running.get("/model").json().get("version") == version, lambda: f"after {after}:\n{running.log()}")
    return time.monotonic() - started
