"""Two versions are compared on the same pictures, and the figures are those of what each answers."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import artifact
from artifact.layout import METADATA
from tests.training.conftest import call
from training.data import synthetic
from training.evaluation.inference import openvino_predict
from training.evaluation.paired import Paired

pytestmark = pytest.mark.keras

Version = tuple[Path, str]


@pytest.fixture(scope="module")
def rights(smoke: Version, worse: Version) -> list[np.ndarray]:
    """Return which of the made-up test images each of both versions gets right, bool [500] each."""
    _, _, test = synthetic.load(2000, 500, seed=0)
    return [openvino_predict(version)(test.images).argmax(axis=1) == test.classes for version, _ in (smoke, worse)]


@pytest.mark.slow
def test_the_figures_are_those_of_the_answers(smoke: Version, worse: Version, rights: list[np.ndarray]) -> None:
    """Accuracies, counts, p and recalls equal those computed from what each version answers."""
    code, printed, errors = call(["compare", str(smoke[0]), str(worse[0]), "--json"])
    assert (code, errors) == (0, "")
    found = json.loads(printed)
    paired = Paired.count(*rights)
    assert found["models"] == [{"name": "smoke", "version": 1}, {"name": "smoke", "version": 2}]
    assert (found["measured_on"], found["images"]) == ("made-up test", 500)
    assert found["accuracies"] == [right.mean() for right in rights]
    counts = [found[name] for name in ("both_right", "only_first_right", "only_second_right", "both_wrong")]
    assert counts == [paired.both, paired.only_first, paired.only_second, paired.neither]
    assert found["p"] == paired.p_different()
    assert tuple(found["difference_95"]) == paired.interval()
    for version, place in ((smoke, 0), (worse, 1)):
        recalls = {
            label: figures["recall"] for label, figures in artifact.validate(version[0]).metrics.per_class.items()
        }
        assert {label: pair[place] for label, pair in found["recalls"].items()} == pytest.approx(recalls)


@pytest.mark.slow
def test_the_table_says_which_is_better(smoke: Version, worse: Version, rights: list[np.ndarray]) -> None:
    """People read the accuracies, their difference and a verdict; a version is no different from itself."""
    code, printed, errors = call(["compare", str(worse[0]), str(smoke[0])])
    assert (code, errors) == (0, "")
    good, bad = (right.mean() for right in rights)
    assert f"accuracy  {bad:7.2%}  {good:7.2%}  {100 * (good - bad):+6.2f}\n" in printed
    assert printed.splitlines()[-1].endswith("; B is better beyond noise, at a level of 0.05.")
    code, printed, _ = call(["compare", str(smoke[0]), str(smoke[0])])
    assert code == 0
    assert "They answer 0 differently, 0 of them both wrong.\n" in printed
    assert printed.splitlines()[-1] == "McNemar's exact test: p = 1; no difference beyond noise at a level of 0.05."


@pytest.mark.slow
def test_the_pictures_on_which_they_differ_are_written(smoke: Version, worse: Version, tmp_path: Path) -> None:
    """The list has all of them with both answers, and the sheet is a picture."""
    arguments = ["compare", str(smoke[0]), str(worse[0]), "--plots", str(tmp_path / "new")]
    code, printed, _ = call(arguments)
    assert code == 0
    assert printed.splitlines()[-1] == f"Wrote differences.csv, differences.png to {tmp_path / 'new'}."
    labels, _, test = synthetic.load(2000, 500, seed=0)
    a, b = (openvino_predict(version)(test.images).argmax(axis=1) for version, _ in (smoke, worse))
    with (tmp_path / "new" / "differences.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["index"]) for row in rows] == np.flatnonzero(a != b).tolist()
    for row in rows:
        index = int(row["index"])
        assert (row["label"], row["a"], row["b"]) == (labels[test.classes[index]], labels[a[index]], labels[b[index]])
        assert 1 / 3 <= float(row["a_probability"]) <= 1
    with Image.open(tmp_path / "new" / "differences.png") as sheet:
        assert min(sheet.size) > 500


def test_labels_in_another_order_are_the_same_labels(smoke: Version, tmp_path: Path) -> None:
    """Labels are matched by name: one that calls discs squares is wrong on them, wherever its outputs stand."""
    version = shutil.copytree(smoke[0], tmp_path / "1")
    record = json.loads((version / METADATA).read_text())
    (version / METADATA).write_text(json.dumps({**record, "labels": ["square", "disc", "stripes"]}))
    code, printed, _ = call(["compare", str(smoke[0]), str(version), "--json"])
    assert code == 0
    recalls = json.loads(printed)["recalls"]
    assert recalls["disc"][1] + recalls["square"][1] < 0.1
    assert recalls["stripes"][1] == recalls["stripes"][0]


@pytest.mark.process
def test_other_labels_cannot_be_compared(smoke: Version, published: Path) -> None:
    """Versions of two tasks have nothing in common; the error names the labels of both."""
    code, printed, errors = call(["compare", str(smoke[0]), str(published)])
    assert (code, printed) == (1, "")
    assert errors == (f"training: error: {smoke[0]} knows disc, square, stripes; {published} knows red, green, blue\n")
