"""What the documents say is so: figures, links, commands, and their blocks of code."""

import re
from pathlib import Path

import pytest

from artifact import validate
from tests.documents import Block, blocks, documents
from training.fit.recipe import PRESETS


def test_the_figures_are_those_of_the_bundled_version(root: Path) -> None:
    """Accuracy, cost and epochs equal the metadata of models/cifar10/5, whose files are intact."""
    metadata = validate(root / "models" / "cifar10" / "5")
    accuracy = f"**{metadata.metrics.accuracy:.2%}** of the {metadata.metrics.images:,} test images"
    readme, results = ((root / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results.md"))
    assert accuracy in readme
    assert accuracy in results
    assert f"{metadata.megaflops:.0f} MFLOP" in readme
    assert f"{metadata.training['epochs']} epochs" in results
    assert metadata.metrics.accuracy >= 0.955
    assert metadata.dataset["train"] + metadata.dataset["validation"] == 50_000


def test_the_readme_is_short(root: Path) -> None:
    """It shows what there is and where to read on; everything else is in docs/."""
    assert len((root / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def anchors(document: Path) -> set[str]:
    """Return what a link may name behind ``#``: the headings in lower case, words joined by hyphens, no other signs."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere(root: Path) -> None:
    """Each relative link in the documents names a file that exists, and behind ``#`` a heading that it has."""
    followed = 0
    for document in documents(root):
        for target in re.findall(r"\]\(([^)]+)\)|srcset=\"(.*?)\"|src=\"(.*?)\"", document.read_text(encoding="utf-8")):
            name, _, anchor = "".join(target).partition("#")
            if name.startswith(("http:", "https:")):
                continue
            file = document.parent / name if name else document
            assert file.exists(), f"{document.name}: {target}"
            assert not anchor or anchor in anchors(file), f"{document.name}: {target}"
            followed += 1
    assert followed > 50


def test_every_make_target_exists(root: Path) -> None:
    """Each ``make`` command in the documents is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in documents(root):
        named = set(re.findall(r"(?:`|^)make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets, document.name


def test_every_preset_exists(root: Path) -> None:
    """Each ``--preset`` in the documents is one of the trainer's."""
    named = {
        preset
        for document in documents(root)
        for preset in re.findall(r"--preset ([a-z]+)", document.read_text(encoding="utf-8"))
    }
    assert named
    assert named <= set(PRESETS)


@pytest.mark.parametrize("block", blocks(Path(__file__).parents[1]), ids=lambda block: block.place)
def test_what_is_not_run_says_why(root: Path, block: Block) -> None:
    """A block that no test runs has a reason, and where that names another test, it is there; only code has marks."""
    assert block.language in ("sh", "python", "json", "toml", "yaml", "")
    assert block.is_code or not block.reason + block.before
    for named in re.findall(r"tests/[\w/.]*\w", block.reason):
        assert (root / named).exists(), block.place


def test_no_picture_goes_through_a_command_line(root: Path) -> None:
    """``$(base64 ...)`` ends in "Argument list too long" for a photograph; every command has a pipe instead."""
    for document in documents(root):
        assert "$(base64" not in document.read_text(encoding="utf-8"), document.name
