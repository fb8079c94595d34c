"""What a release is made of: its notes, its workflow's pins and permissions."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CHANGELOG = """# Changelog

## [Unreleased]

- later

## [1.2.3] - 2026-01-02

### Added

- this

## [1.2.30] - 2026-01-01

- other
"""


@pytest.fixture
def tagged(root: Path, tmp_path: Path) -> Path:
    """A checkout of version 1.2.3, as far as its release reads it."""
    shutil.copy(root / "Makefile", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text('"""The service."""\n\n__version__ = "1.2.3"\n')
    return tmp_path


def notes(checkout: Path, version: str) -> subprocess.CompletedProcess[str]:
    """Run the command that the release workflow calls."""
    command = ["make", "--silent", "release-notes", "PYTHON=python3", f"VERSION={version}"]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def test_the_notes_are_the_changelogs_section(tagged: Path) -> None:
    """All of that version's section and nothing of another's, also where one begins with the other."""
    done = notes(tagged, "1.2.3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "### Added\n\n- this"


@pytest.mark.parametrize("version", ["1.2.30", "1.2.4", "", "$(touch pwned)", "`touch pwned`"])
def test_a_tag_of_another_version_is_refused(tagged: Path, version: str) -> None:
    """A tag that does not name the code's version ends the release, and runs nothing of what it is called."""
    done = notes(tagged, version)
    assert done.returncode != 0
    assert "service/__init__.py is '1.2.3'" in done.stderr
    assert not (tagged / "pwned").exists()


def test_a_version_that_the_changelog_does_not_know_is_refused(tagged: Path) -> None:
    """Nothing is released without a word on what it changes."""
    (tagged / "CHANGELOG.md").write_text(CHANGELOG.replace("[1.2.3]", "[1.2.2]"))
    done = notes(tagged, "1.2.3")
    assert done.returncode != 0
    assert "has no section [1.2.3]" in done.stderr


def test_the_changelog_keeps_its_form(root: Path) -> None:
    """Unreleased comes first, versions have a date, and what is in them stands under Keep a Changelog's words."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *others = re.findall(r"(?m)^## (.+)$", text)
    assert first == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\S*\] - \d{4}-\d\d-\d\d", heading) for heading in others)
    kinds = set(re.findall(r"(?m)^### (.+)$", text))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def workflows(root: Path) -> dict[str, Any]:
    """Return the workflows by the names of their files."""
    folder = root / ".github" / "workflows"
    return {file.name: yaml.safe_load(file.read_text(encoding="utf-8")) for file in folder.glob("*.yml")}


def test_every_action_is_pinned_by_its_commit(root: Path) -> None:
    """A tag of an action can be moved, a commit cannot; a comment names the version, for people and for Dependabot."""
    for file in (root / ".github" / "workflows").glob("*.yml"):
        for line in re.findall(r"uses: (.+)", file.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), f"{file.name}: {line}"


def test_only_what_needs_a_right_has_it(root: Path) -> None:
    """No workflow may write by default; publishing, signing and making the release may each only that."""
    found = workflows(root)
    assert found["ci.yml"]["permissions"] == {"contents": "read"}
    assert found["release.yml"]["permissions"] == {}
    assert found["security.yml"]["permissions"] == {}
    told = {"contents": "read", "security-events": "write"}
    assert {name: job["permissions"] for name, job in found["security.yml"]["jobs"].items()} == {
        "audit": {"contents": "read"},
        "codeql": told,
        "scorecard": {**told, "id-token": "write"},
    }
    rights = {name: job["permissions"] for name, job in found["release.yml"]["jobs"].items()}
    assert rights == {
        "test": {"contents": "read"},
        "image": {"contents": "read", "packages": "write", "id-token": "write"},
        "package": {"contents": "read"},
        "pypi": {"id-token": "write"},
        "release": {"contents": "write"},
    }


def test_nothing_is_published_before_the_tests_have_passed(root: Path) -> None:
    """Images and package wait for the tests, the release for both, and all call the commands that people call."""
    found = workflows(root)
    jobs = found["release.yml"]["jobs"]
    needs = {name: job.get("needs") for name, job in jobs.items()}
    assert needs == {
        "test": None,
        "image": "test",
        "package": "test",
        "pypi": "package",
        "release": ["image", "pypi"],
    }
    assert "make wheel PYTHON=python" in [step.get("run") for step in jobs["package"]["steps"]]
    tests = [f"make {target} PYTHON=python" for target in ("check", "test", "test-stack")]
    for job in (jobs["test"], found["ci.yml"]["jobs"]["check"]):
        commands = [step["run"] for step in job["steps"] if "run" in step]
        assert commands[-3:] == tests


def test_all_images_are_built_for_both_architectures_and_attested(root: Path) -> None:
    """Each has an SBOM, provenance, labels and a signature, and the labels' arguments are those of its Dockerfile."""
    job = workflows(root)["release.yml"]["jobs"]["image"]
    assert job["strategy"]["matrix"]["image"] == ["service", "trainer", "trainer-cpu"]
    (build,) = (step for step in job["steps"] if "build-push-action" in step.get("uses", ""))
    options = build["with"]
    assert options["platforms"] == "linux/amd64,linux/arm64"
    assert (options["sbom"], options["provenance"]) == (True, "mode=max")
    given = set(re.findall(r"(?m)^(\w+)=", options["build-args"]))
    assert "darkroom-${IMAGE}" in "".join(step.get("run", "") for step in job["steps"])
    for image in ("service", "trainer"):
        recipe = (root / "docker" / f"{image}.Dockerfile").read_text(encoding="utf-8")
        labels = set(re.findall(r'image\.\w+="\$\{(\w+)\}"', recipe))
        assert labels == given - {"DEVICE"} == {"CREATED", "REVISION", "SOURCE", "VERSION"}
    assert any("cosign sign" in step.get("run", "") for step in job["steps"])
