"""``evaluate`` measures any version on any pictures with labels that it knows."""

import json
from pathlib import Path

import numpy as np
import pytest

import artifact
from tests.training.conftest import call, write_pictures
from training.data import synthetic
from training.data.dataset import Split

pytestmark = pytest.mark.keras

Version = tuple[Path, str]


@pytest.fixture(scope="module")
def shapes() -> tuple[tuple[str, ...], Split]:
    """Return 40 pictures that the smoke version was not trained on."""
    labels, pictures, _ = synthetic.load(40, 1, seed=7)
    return labels, pictures


def test_json_has_the_figures_of_the_metadata(smoke: Version) -> None:
    """On the data that it was published with, a version gets the figures that it was published with."""
    code, printed, errors = call(["evaluate", str(smoke[0]), "--json"])
    assert (code, errors) == (0, "")
    found, metrics = json.loads(printed), artifact.validate(smoke[0]).metrics
    assert found["model"] == {"name": "smoke", "version": 1}
    assert (found["measured_on"], found["images"]) == ("made-up test", 500)
    assert found["accuracy"] == metrics.accuracy
    assert found["expected_calibration_error"] == pytest.approx(metrics.expected_calibration_error, abs=1e-6)
    for label, figures in metrics.per_class.items():
        assert found["per_class"][label]["precision"] == figures["precision"]
    assert sum(figures["images"] for figures in found["per_class"].values()) == 500


def test_a_folder_with_some_of_the_labels_is_measured_on_those(
    smoke: Version, shapes: tuple[tuple[str, ...], Split], tmp_path: Path
) -> None:
    """Labels are matched by name: the only class there is measured as that class, and the others are told."""
    labels, pictures = shapes
    stripes = pictures.classes == labels.index("stripes")
    some = Split(pictures.images[stripes], pictures.classes[stripes])
    folder = write_pictures(tmp_path / "some", some, labels)
    code, printed, errors = call(["evaluate", str(smoke[0]), "--data", str(folder), "--split", "all"])
    assert code == 0
    assert "There is no picture of disc, square: measured on the other labels.\n" in errors
    last = printed.splitlines()[-1]
    assert last.startswith("accuracy ")
    assert f"% of {len(some)} images (some all; 95%: " in last
    assert last.endswith(" (too few images to be exact)")
    assert float(last.split()[1].rstrip("%")) > 80  # at the place of another label nothing would be right


def test_labels_that_the_version_lacks_are_named(
    smoke: Version, shapes: tuple[tuple[str, ...], Split], tmp_path: Path
) -> None:
    """A folder of something else is an error that names it and what is known."""
    _, pictures = shapes
    folder = write_pictures(tmp_path / "others", pictures, ("disc", "star", "moon"))
    code, printed, errors = call(["evaluate", str(smoke[0]), "--data", str(folder), "--json"])
    assert (code, printed) == (1, "")
    assert errors.splitlines()[-1] == (
        "training: error: the data has pictures of moon, star, which the version does not know; "
        "it knows disc, square, stripes"
    )


def test_pictures_are_brought_to_the_size_of_the_version(smoke: Version, tmp_path: Path) -> None:
    """Of pictures twice as large a version gets as many right as of those that they were made of."""
    labels, pictures, _ = synthetic.load(40, 1, seed=7)
    large = Split(np.kron(pictures.images, np.ones((1, 2, 2, 1), np.uint8)), pictures.classes)
    folder = write_pictures(tmp_path / "large", large, labels)
    code, printed, _ = call(["evaluate", str(smoke[0]), "--data", str(folder), "--split", "all", "--json"])
    assert code == 0
    assert json.loads(printed)["accuracy"] > 0.9


def test_pictures_that_were_trained_on_are_told(smoke: Version) -> None:
    """Figures on training images are too good, so that is said; the held-out ones are as good as the test's."""
    code, printed, errors = call(["evaluate", str(smoke[0]), "--split", "all"])
    assert code == 0
    assert "of 2,500 images (made-up all)" in printed
    assert errors == f"{smoke[0]} was trained on some of these pictures: expect less on others.\n"
    assert call(["evaluate", str(smoke[0]), "--split", "validation"])[2] == ""


def test_plots_are_written(smoke: Version, tmp_path: Path) -> None:
    """The confusion matrix and the mistakes lie in the folder that was asked for."""
    code, printed, _ = call(["evaluate", str(smoke[0]), "--plots", str(tmp_path / "new")])
    assert code == 0
    assert printed.splitlines()[-1].startswith("Wrote confusion_matrix.png, ")
    assert (tmp_path / "new" / "mistakes.png").is_file()
