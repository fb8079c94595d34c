"""What docs/design.md says about where things are, and docs/training.md about a new command, is so."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from artifact import read_metadata
from training.cli import COMMANDS


@pytest.fixture
def design(root: Path) -> str:
    """Return the text of the design."""
    return (root / "docs" / "design.md").read_text(encoding="utf-8")


def test_every_place_that_the_design_names_exists(root: Path, design: str) -> None:
    """Rooms and files in the map are there."""
    places = set(re.findall(r"`((?:artifact|machine|imaging|training|service|client|tests|docker)/[\w/.-]*)`", design))
    assert len(places) > 25
    assert [place for place in sorted(places) if not (root / place).exists()] == []


def test_every_room_is_in_the_map(root: Path, design: str) -> None:
    """No folder of the two large packages is left for the reader to guess."""
    folders = [folder for package in ("training", "service") for folder in (root / package).iterdir()]
    rooms = {f"{room.parent.name}/{room.name}/" for room in folders if (room / "__init__.py").exists()}
    assert len(rooms) > 10
    assert [room for room in sorted(rooms) if f"| `{room}` |" not in design] == []


def test_the_example_of_a_command_takes_the_files_that_are_listed(root: Path, tmp_path: Path) -> None:
    """In a copy of the packages the changes of docs/training.md, and no other, make a command that works."""
    text = (root / "docs" / "training.md").read_text(encoding="utf-8")
    _, _, section = text.partition("## How to add a command")
    assert re.findall(r"^\d\. `([^`]+)`", section, re.MULTILINE) == [
        "training/commands/NAME.py",
        "training/cli.py",
        "training/commands/train.py",
        "darkroom.py",
    ]
    [example] = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    for package in ("artifact", "imaging", "machine", "training"):
        shutil.copytree(root / package, tmp_path / package)
    shutil.copy(root / "darkroom.py", tmp_path)
    (tmp_path / "training" / "commands" / "labels.py").write_text(example, encoding="utf-8")
    insert(tmp_path / "training" / "cli.py", "COMMANDS = (", '\n    "labels",')
    usage = "darkroom labels VERSION"
    insert(tmp_path / "training" / "commands" / "train.py", "darkroom study [options]", f"\n{usage}")

    insert(
        tmp_path / "darkroom.py",
        '    "look at versions": {',
        '\n        "labels": Command(TRAINING, ("labels",), "print labels"),',
    )

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "darkroom.py", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    version = root / "models" / "cifar10" / "5"
    done = call("labels", version)
    assert (done.returncode, tuple(done.stdout.split())) == (0, read_metadata(version).labels), done.stderr
    assert call("labels").returncode == 2
    assert call("labels", tmp_path).returncode == 1
    assert usage in call("train", "--help").stdout
    assert "  labels      print labels\n" in call("--help").stdout


def insert(file: Path, after: str, text: str) -> None:
    """Put ``text`` behind the one place where ``file`` says ``after``."""
    content = file.read_text(encoding="utf-8")
    assert content.count(after) == 1
    file.write_text(content.replace(after, after + text), encoding="utf-8")


def test_every_command_is_in_the_usage(root: Path) -> None:
    """Who asks for --help sees all commands."""
    command = [sys.executable, "-m", "training", "--help"]
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert COMMANDS
    assert [name for name in COMMANDS if f"darkroom {name} " not in printed] == []
