"""The documents for people, and the code in them."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<word>not run|before|stays): (?P<said>.*?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code in a document.

    A comment above it that readers do not see says why it is not run (``<!-- not run: it needs a GPU -->``), what has
    to be done first (``<!-- before: rm -r models -->``), or that the service it starts stays for the blocks below.
    """

    document: str
    line: int
    language: str
    text: str
    reason: str  # why it is not run; empty where it is
    before: str  # a command to give first; empty where there is none
    stays: bool  # whether the blocks below ask the service that it starts

    @property
    def place(self) -> str:
        """Where it is, as editors take it."""
        return f"{self.document}:{self.line}"

    @property
    def is_code(self) -> bool:
        """Say whether it is something to run."""
        return self.language in ("sh", "python")

    @property
    def serves(self) -> bool:
        """Say whether it is one command that serves until it is stopped."""
        commands = [line for line in self.text.splitlines() if line.strip() and not line.startswith("#")]
        return len(commands) == 1 and re.search(r"^(\w+=\S+ )*\./darkroom serve\b", commands[0]) is not None


def documents(root: Path) -> list[Path]:
    """Return the documents."""
    named = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "training/RESULTS.md", "benchmarks/NOTES.md")
    return [*(root / name for name in named), *sorted((root / "docs").glob("*.md"))]


def blocks(root: Path) -> list[Block]:
    """Return every block of every document, in order."""
    found = []
    for document in documents(root):
        text = document.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            indent = len(match["indent"])
            code = "\n".join(line[indent:] for line in match["text"].splitlines())
            line = text.count("\n", 0, match.start("language")) + 1
            said = {match["word"]: match["said"]}
            reason, before = said.get("not run", ""), said.get("before", "")
            place = (str(document.relative_to(root)), line)
            found.append(Block(*place, match["language"], code, reason, before, stays="stays" in said))
    return found


def copy_of_the_repository(root: Path, folder: Path) -> None:
    """Copy what a clone of ``root`` would have, and what is not committed yet, into ``folder``.

    Raises:
        subprocess.CalledProcessError: ``root`` is no git checkout.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    folder.mkdir()
    archive = ["tar", "--create", "--null", "--ignore-failed-read", "--files-from", "-"]
    packed = subprocess.run(archive, cwd=root, input=listed, capture_output=True, check=True).stdout
    subprocess.run(["tar", "--extract"], cwd=folder, input=packed, check=True)
