"""What docs/design.md says about where things are, and about what to change for something new, is so."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from training.cli import COMMANDS

TOY = '''
"""``python -m training toy``: say a word."""

import argparse


def parse(arguments):
    """Return the word."""
    parser = argparse.ArgumentParser(prog="python -m training toy")
    parser.add_argument("word")
    return parser.parse_args(arguments).word


def run(settings, _interruption):
    """Print the word and return an exit code of its own."""
    print(f"It says {settings}.")
    return 7
'''


@pytest.fixture
def design(root: Path) -> str:
    """Return the text of the design."""
    return (root / "docs" / "design.md").read_text(encoding="utf-8")


def test_every_place_that_the_design_names_exists(root: Path, design: str) -> None:
    """Rooms and files in the map are there; those of something new are named NAME."""
    places = set(re.findall(r"`((?:artifact|machine|imaging|training|service|client|tests|docker)/[\w/.-]*)`", design))
    assert len(places) > 25
    assert [place for place in sorted(places) if not (root / place).exists()] == ["training/commands/NAME.py"]


def test_every_room_is_in_the_map(root: Path, design: str) -> None:
    """No folder of the two large packages is left for the reader to guess."""
    rooms = {f"{folder.parent.name}/{folder.name}/" for p in ("training", "service") for folder in (root / p).iterdir()
             if (folder / "__init__.py").exists()}  # fmt: skip
    assert len(rooms) > 10
    assert [room for room in sorted(rooms) if f"| `{room}` |" not in design] == []


def test_what_the_design_asks_for_a_command_makes_one(root: Path, design: str, tmp_path: Path) -> None:
    """With the three changes that the design lists, and no other, a toy command runs and is told of by --help."""
    [steps] = re.findall(r"^- \*\*A command\*\*(.*?)^- ", design, re.MULTILINE | re.DOTALL)
    assert re.findall(r"`(training/[^`]+)`", steps) == [
        "training/commands/NAME.py",
        "training/cli.py",
        "training/commands/train.py",
    ]
    for package in ("artifact", "imaging", "machine", "training"):
        shutil.copytree(root / package, tmp_path / package)
    (tmp_path / "training" / "commands" / "toy.py").write_text(TOY, encoding="utf-8")
    insert(tmp_path / "training" / "cli.py", "COMMANDS = (", '\n    "toy",')
    insert(
        tmp_path / "training" / "commands" / "train.py",
        "python -m training study [options]",
        "\n  python -m training toy WORD",
    )

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "training", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = call("toy", "hello")
    assert (done.returncode, done.stdout) == (7, "It says hello.\n"), done.stderr
    assert call("toy").returncode == 2
    assert "python -m training toy WORD" in call("--help").stdout


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
    assert [name for name in COMMANDS if f"python -m training {name} " not in printed] == []
