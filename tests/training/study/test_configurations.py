"""The study compares what the original compared: one thing at a time, then all of it."""

from dataclasses import asdict

import pytest

from training.study.configurations import BASELINE, CONFIGURATIONS, FULL, QUICK, Configuration

SINGLES = {
    "vgg1": {"blocks"},
    "vgg2": {"blocks"},
    "batchnorm": {"batch_normalization"},
    "l2": {"l2"},
    "dropout": {"dropout"},
    "augmentation": {"augment"},
}


def _changes(configuration: Configuration, beside: Configuration) -> dict[str, object]:
    words = {"name", "what", "original"}
    other = asdict(beside)
    return {key: value for key, value in asdict(configuration).items() if key not in words and value != other[key]}


@pytest.mark.parametrize(("name", "changed"), SINGLES.items())
def test_a_single_measure_is_all_that_differs(name: str, changed: set[str]) -> None:
    """What a single configuration gains or loses is the effect of one thing."""
    assert set(_changes(CONFIGURATIONS[name], CONFIGURATIONS[BASELINE])) == changed


def test_together_is_the_four_single_measures() -> None:
    """The combination has each of the four exactly as it was tried alone."""
    baseline = CONFIGURATIONS[BASELINE]
    singles = [_changes(CONFIGURATIONS[name], baseline) for name in ("batchnorm", "l2", "dropout", "augmentation")]
    assert _changes(CONFIGURATIONS["together"], baseline) == {key: one[key] for one in singles for key in one}


def test_the_last_ones_differ_in_pixels_and_length_alone() -> None:
    """Centring and normalising are compared on the same network, and the long schedule lengthens the latter."""
    together = CONFIGURATIONS["together"]
    assert _changes(CONFIGURATIONS["centred"], together) == {"scaling": "centred"}
    assert _changes(CONFIGURATIONS["normalised"], together) == {"scaling": "normalised"}
    assert _changes(CONFIGURATIONS["long"], CONFIGURATIONS["normalised"]) == {"long": True}
    assert FULL.epochs_of(CONFIGURATIONS["long"]) == 275
    assert {FULL.epochs_of(one) for name, one in CONFIGURATIONS.items() if name != "long"} == {100}
    assert QUICK.epochs_of(CONFIGURATIONS["long"]) > QUICK.epochs_of(together)
