"""The table stands beside the original's figures and counts what the seeds gave."""

from pathlib import Path

import pytest

from training.study.configurations import QUICK
from training.study.report import results, table, write
from training.study.run import Outcome

pytestmark = pytest.mark.keras


def _outcome(name: str, seed: int, test_accuracy: float) -> Outcome:
    environment = {"backend": "tensorflow", "precision": "bfloat16", "hardware": "two cores"}
    return Outcome(name, seed, 550_570, 12, 60.0, 0.99, test_accuracy, [], {}, environment)


def test_several_seeds_give_mean_and_deviation(tmp_path: Path) -> None:
    """Each figure is a mean with the sample's standard deviation, the gain is that of the means."""
    outcomes = [_outcome("dropout", 0, 0.74), _outcome("dropout", 1, 0.76), _outcome("vgg3", 0, 0.70)]
    found = results(outcomes)
    assert [result.configuration.name for result in found] == ["vgg3", "dropout"]
    _, baseline, dropout = table(found).splitlines()
    assert baseline.split()[-4:] == ["99.00%", "70.00%", "about", "70"]
    assert "75.00 ± 1.41%" in dropout
    assert "+5.0" in dropout
    write(found, QUICK, "Some data.", tmp_path)
    text = (tmp_path / "study.md").read_text()
    assert "| 99.00 ± 0.00% | 75.00 ± 1.41% | +5.0 | +9 |" in text
    assert "bfloat16 on two cores" in text


def test_without_the_baseline_there_is_no_gain() -> None:
    """A study of some configurations compares with nothing that it has not trained."""
    (_, line) = table(results([_outcome("l2", 0, 0.71)])).splitlines()
    assert line.split()[-2:] == ["71.00%", "+5"]
