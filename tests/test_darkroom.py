"""The command ``darkroom``, as people type it: in a clone, and where not everything is installed."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import darkroom
from artifact import read_metadata
from service import __version__
from training.cli import COMMANDS

PACKAGES = ("artifact", "client", "imaging", "machine", "service", "training")


def call(command: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command and return what came of it."""
    return subprocess.run(
        [command, *arguments], cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def bare(root: Path, tmp_path: Path) -> Path:
    """The command as pip installs it, beside the packages, by a Python that has nothing else."""
    folder = tmp_path / "installed"
    for package in PACKAGES:
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "darkroom.py", folder)
    command = folder / "darkroom"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "{folder / "darkroom.py"}" "$@"\n')
    command.chmod(0o755)
    return command


def test_help_lists_every_command_in_groups(root: Path) -> None:
    """Each command stands in one line under what it is for; none is missing that the trainer has."""
    done = call(root / "darkroom", "--help")
    assert done.returncode == 0
    for title, commands in darkroom.GROUPS.items():
        _, _, below = done.stdout.partition(f"\n{title}:\n")
        lines = below.partition("\n\n")[0].splitlines()
        assert [line.split()[0] for line in lines] == list(commands)
    assert set(COMMANDS) <= set(darkroom.COMMANDS)
    assert call(root / "darkroom").stdout == done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_it_says_its_version(root: Path) -> None:
    """``--version`` is the version of the code."""
    assert call(root / "darkroom", "--version").stdout == f"darkroom {__version__}\n"


def test_a_wrong_command_is_told_with_the_one_that_is_meant(root: Path) -> None:
    """Who mistypes reads the right name; the exit code is that of wrong usage."""
    done = call(root / "darkroom", "trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "darkroom: there is no command 'trian'. Do you mean 'train'? `darkroom --help` lists all.\n"


@pytest.mark.parametrize(
    ("command", "extra"),
    [("serve", "service"), ("train", "training,cpu"), ("evaluate", "training,cpu"), ("predict", "client")],
)
def test_a_missing_extra_is_named(bare: Path, command: str, extra: str) -> None:
    """Where nothing is installed, each command says in a line what pip has to install; there is no traceback."""
    done = call(bare, command, "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"darkroom {command} needs: pip install 'darkroom[{extra}]'\n"


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("service", (), "service"),
        ("training", ("--data", "x"), "training,cpu"),
        ("training", ("evaluate", "models/cifar10/5"), "training,cpu"),
        ("client", ("predict", "x"), "client"),
    ],
)
def test_modules_say_what_is_missing(root: Path, module: str, arguments: tuple[str, ...], extra: str) -> None:
    """``python -m`` of a part ends in a sentence as well, by a Python that has no packages."""
    command = [sys.executable, "-S", "-m", module, *arguments]
    done = subprocess.run(
        command, cwd=root, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert f"pip install 'darkroom[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fault_of_the_code_is_no_missing_package(tmp_path: Path) -> None:
    """A module that a package which is there does not have is a fault, and stays a traceback."""
    from machine import how_to_install

    with pytest.raises(ModuleNotFoundError, match=r"json\.nothing"):
        how_to_install(ModuleNotFoundError("No module named 'json.nothing'", name="json.nothing"), "it", "service")


def test_a_clone_makes_the_environment_that_a_command_needs(root: Path, tmp_path: Path) -> None:
    """Where it is not there, make installs it, and what make says is what one reads."""
    clone = tmp_path / "clone"
    (clone / "requirements").mkdir(parents=True)
    for name in ("service.txt", "client.txt", "dev.txt"):
        (clone / "requirements" / name).write_text("")
    shutil.copy(root / "darkroom.py", clone)
    (clone / "Makefile").write_text("%/stamp:\n\t@echo making $@\n\t@exit 3\n")
    done = subprocess.run(
        [sys.executable, "-I", "-S", clone / "darkroom.py", "serve"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2  # make's
    assert "making .venv-serve/stamp" in done.stderr


def test_it_works_from_any_folder(root: Path, tmp_path: Path) -> None:
    """A folder with modules of the same names, where it is called, changes nothing."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    done = call(root / "darkroom", "check", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout


@pytest.mark.process
@pytest.mark.slow
def test_predict_asks_a_version_where_one_is_named(root: Path, tmp_path: Path) -> None:
    """A version in the first place answers without a service."""
    done = call(root / "darkroom", "predict", "models/cifar10/5", "docs/pictures/frog.jpg", cwd=root)
    assert done.returncode == 0, done.stderr
    assert "frog" in done.stdout
    assert "frog" in read_metadata(root / "models" / "cifar10" / "5").labels


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["darkroom", "tr"], {"train"}),
        (["darkroom", "exp"], {"explain", "export"}),
        (["darkroom", "check", "--ht"], {"--html"}),
    ],
)
def test_the_shell_completes(root: Path, words: list[str], expected: set[str]) -> None:
    """Bash gets commands, and the options that a command's own help has."""
    words[0] = str(root / words[0])
    script = call(root / "darkroom", "completion", "bash").stdout
    ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _darkroom "$1" "${@: -1}"; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}", "bash", *words], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == expected


def test_the_shell_has_to_be_named(root: Path) -> None:
    """Completion of another shell is wrong usage; that of zsh begins with what makes bash's work."""
    assert call(root / "darkroom", "completion").returncode == 2
    assert call(root / "darkroom", "completion", "zsh").stdout.startswith("autoload -U")


def test_any_python_can_start_it(root: Path) -> None:
    """It parses as Python 3.8 and imports nothing that is not in the standard library, before it runs a part."""
    tree = ast.parse((root / "darkroom.py").read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
