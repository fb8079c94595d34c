"""``report`` writes the page on a version again, for any pictures, and on two versions; it leaves both as they are."""

import shutil
from pathlib import Path

import pytest

import artifact
from artifact.layout import EXTRA, MODEL_CARD, REPORT
from tests.reports import Page
from tests.training.conftest import SMOKE, call, write_pictures
from training.data import synthetic
from training.publish import quantization

pytestmark = pytest.mark.keras

Version = tuple[Path, str]


def written(output: Path) -> Page:
    """Read the page in a file."""
    return Page(output.read_text(encoding="utf-8"))


def test_a_training_ends_with_its_report(smoke: Version) -> None:
    """The version carries it under a checksum, the last line names it, and its figures are those of the metadata."""
    version, printed = smoke
    metadata = artifact.validate(version)
    assert REPORT in metadata.files
    assert printed.splitlines()[-1] == f"  report            {version / REPORT}"
    page = written(version / REPORT)
    text = " ".join(page.text.split())
    assert f"Accuracy {metadata.metrics.accuracy:.2%}" in text
    assert f"revision {metadata.revision}" in text
    assert {"Accuracy after each epoch", "Loss after each epoch"} <= {
        attributes.get("aria-label") for _, attributes in page.elements
    }
    assert "before calibration" in text
    assert len(page.pictures()) > 3


def test_it_is_made_again(smoke: Version, tmp_path: Path) -> None:
    """With the same pictures it has the same figures and the same curves, and names the file that repeats it."""
    version, _ = smoke
    before = artifact.validate(version)
    code, printed, errors = call(["report", version, "--output", tmp_path / "again.html"])
    assert (code, errors) == (0, "")
    assert printed.splitlines()[-1].startswith(f"Wrote {tmp_path / 'again.html'} (")
    page, first = written(tmp_path / "again.html"), written(version / REPORT)
    text = " ".join(page.text.split())
    assert "smoke, version 1" in text
    assert f"Accuracy {before.metrics.accuracy:.2%}" in text
    assert f"darkroom train --config {version}/assets.extra/config.toml" in text
    curves = [
        [attributes["points"] for tag, attributes in each.elements if tag == "polyline"] for each in (page, first)
    ]
    assert curves[0][-4:] == curves[1][-4:]
    assert artifact.validate(version) == before


def test_any_pictures_will_do(smoke: Version, tmp_path: Path) -> None:
    """Of a folder with one of the labels it shows the names of the files, and says what is missing."""
    labels, pictures, _ = synthetic.load(40, 1, seed=7)
    folder = write_pictures(tmp_path / "some", pictures, labels)
    for label in ("square", "stripes"):
        shutil.rmtree(folder / label)
    (folder / "disc" / "empty.png").touch()
    arguments: list[str | Path] = [
        "report",
        smoke[0],
        "--data",
        folder,
        "--split",
        "all",
        "--output",
        tmp_path / "some.html",
    ]
    code, _, errors = call(arguments)
    assert code == 0, errors
    text = written(tmp_path / "some.html").text
    assert "There is no picture of square, stripes: measured on the other labels." in text
    assert "disc/empty.png" in text
    assert "1: the file is empty" in text
    code, _, errors = call([*arguments, "--no-pictures"])
    assert code == 0, errors
    page = written(tmp_path / "some.html")
    assert page.pictures() == []
    assert ".png" not in page.text


@pytest.mark.slow
def test_two_versions_are_shown_on_the_same_pictures(smoke: Version, worse: Version, tmp_path: Path) -> None:
    """The page has what ``compare`` counts, and pictures of what is fixed."""
    output = tmp_path / "changes.html"
    code, _, errors = call(["report", smoke[0], "--compare", worse[0], "--output", output])
    assert code == 0, errors
    page = written(output)
    text = " ".join(page.text.split())
    accuracies = [artifact.validate(version).metrics.accuracy for version in (worse[0], smoke[0])]
    assert f"version 2 {accuracies[0]:.2%}" in text
    assert f"version 1 {accuracies[1]:.2%}" in text
    verdict = call(["compare", worse[0], smoke[0]])[1].splitlines()[-1].replace("; B is", "; version 1 is")
    assert verdict in text
    assert len(page.pictures()) > 10


def test_a_version_is_not_written_to(smoke: Version, tmp_path: Path) -> None:
    """A file inside of a version would make it another one, so that is refused, and nothing is left of it."""
    version, _ = smoke
    code, printed, errors = call(["report", version, "--output", version / REPORT])
    assert (code, printed) == (1, "")
    assert "which may not be changed; choose another place" in errors
    artifact.validate(version)
    code, _, errors = call(["report", version, "--output", tmp_path / "missing" / "page.html"])
    assert code == 1
    assert "cannot be written" in errors


@pytest.mark.slow
def test_a_training_leaves_pictures_out_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither report nor plots have any, its file repeats that, and a version that is quantised has none either."""
    folders = ("--models", tmp_path / "m", "--run", tmp_path / "r")
    code, _, errors = call([*SMOKE, "--epochs", "1", "--no-pictures", *folders])
    assert code == 0, errors
    version = tmp_path / "m" / "smoke" / "1"
    monkeypatch.setattr(quantization, "loses_too_much", lambda _paired: False)
    code, _, errors = call(["quantize", version])
    assert code == 0, errors
    for each in (version, version.with_name("2")):
        assert written(each / REPORT).pictures() == []
        assert not (each / EXTRA / "mistakes.png").exists()
        assert (each / EXTRA / "reliability.png").exists()
        assert "mistakes.png" not in (each / MODEL_CARD).read_text(encoding="utf-8")
    assert "no-pictures = true\n" in (version / EXTRA / "config.toml").read_text(encoding="utf-8")
