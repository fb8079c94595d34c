"""Whatever a file or folder is called, its name is printed on one line, and as nothing that a terminal acts on.

A command that is printed can be given as it is.
"""

import shlex
import subprocess
from pathlib import Path

import pytest

from training import names
from training.names import command, printable


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("grüne Äpfel 🌸", "grüne Äpfel 🌸"),
        ("new\nline\ttab", r"new\nline\ttab"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\u202egpj.exe", r"\u202egpj.exe"),  # which turns around what follows
        (b"\xff.jpg".decode(errors="surrogateescape"), r"\udcff.jpg"),
    ],
)
def test_what_a_terminal_would_act_on_is_spelled_out(name: str, printed: str) -> None:
    """Letters of any script stay as they are."""
    assert printable(name) == printed


@pytest.mark.parametrize("below", ["", "docs"])
def test_the_command_works_where_it_is_printed(root: Path, below: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a clone, from its root and from any other folder."""
    monkeypatch.chdir(root / below)
    words = [*shlex.split(command()), "--version"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("darkroom ")
    assert command().startswith("./" if not below else "/")


def test_an_installed_package_has_the_command_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside it there is no clone."""
    monkeypatch.setattr(names, "_ROOT", tmp_path)
    assert command() == "darkroom"
