"""What the README says is so."""

import re
from pathlib import Path

import pytest

from artifact import validate
from training.fit.recipe import PRESETS


@pytest.fixture
def readme(root: Path) -> str:
    """Return the text of the README."""
    return (root / "README.md").read_text(encoding="utf-8")


def test_the_figures_are_those_of_the_bundled_version(root: Path, readme: str) -> None:
    """Accuracy, cost and epochs in the README equal the metadata of models/cifar10/5, whose files are intact."""
    metadata = validate(root / "models" / "cifar10" / "5")
    assert f"**{metadata.metrics.accuracy:.2%}** of the {metadata.metrics.images:,} test images" in readme
    assert f"{metadata.megaflops:.0f} MFLOP" in readme
    assert f"{metadata.training['epochs']} epochs" in readme
    assert metadata.metrics.accuracy >= 0.955
    assert metadata.dataset["train"] + metadata.dataset["validation"] == 50_000


def documents(root: Path) -> list[Path]:
    """Return the documents whose links are followed."""
    return [
        root / "README.md",
        root / "CONTRIBUTING.md",
        root / "SECURITY.md",
        root / "training" / "RESULTS.md",
        *(root / "docs").glob("*.md"),
    ]


def anchors(document: Path) -> set[str]:
    """Return what a link may name behind ``#``: the headings in lower case, words joined by hyphens, no other signs."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere(root: Path) -> None:
    """Each relative link in the documents names a file that exists, and behind ``#`` a heading that it has."""
    followed = 0
    for document in documents(root):
        for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
            name, _, anchor = target.partition("#")
            if name.startswith(("http:", "https:")):
                continue
            file = document.parent / name if name else document
            assert file.exists(), f"{document.name}: {target}"
            assert not anchor or anchor in anchors(file), f"{document.name}: {target}"
            followed += 1
    assert followed > 50


def test_every_make_target_exists(root: Path, readme: str) -> None:
    """Each ``make`` command in the README is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", readme))
    assert named
    assert named <= targets


def test_every_preset_in_the_readme_exists(readme: str) -> None:
    """Each ``--preset`` in the README is one of the trainer's."""
    named = set(re.findall(r"--preset ([a-z]+)", readme))
    assert named
    assert named <= set(PRESETS)
