"""How far answers have moved: the figures are right, chance is no drift however few answers there are, and drift is."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from scipy.stats import chi2, chi2_contingency

from artifact import Familiarity, Histogram, Metadata, Reference
from artifact.layout import EXTRA, REFERENCE_EMBEDDING
from service.observe.drift import Baseline, baseline_of, chi_square_p, shift
from service.observe.metrics import Metrics
from tests.models import metadata

KNOWN = Reference(
    "made-up test",
    images=100,
    labels={"green": 60, "red": 40},
    confidence=Histogram((0.5, 0.9), (10, 20, 70)),
    familiarity=Histogram((1.0, 2.0, 3.0), (25, 25, 25, 25)),
)
TELLING = dataclasses.replace(
    metadata("colours"), reference=KNOWN, familiarity=Familiarity(1.0, 0.95, "made-up test", 100)
)
EXPECTED = "darkroom_label_share_expected"
SHARES = np.array([0.01, 0.02, 0.07, 0.1, 0.15, 0.25, 0.4])


@pytest.mark.parametrize("freedom", [1, 2, 5, 11, 60, 255])
def test_the_p_value_is_that_of_the_chi_square_distribution(freedom: int) -> None:
    """It is SciPy's, also far out."""
    for expected in (1.0, 0.5, 0.05, 1e-3, 1e-9):
        assert chi_square_p(float(chi2.isf(expected, freedom)), freedom) == pytest.approx(expected)
    assert chi_square_p(1e5, freedom) == 0


def test_the_test_is_that_of_two_samples() -> None:
    """With counts enough in each bin it is SciPy's test of a table of two rows."""
    observed, expected = np.array([30.0, 50, 20, 40]), np.array([100.0, 90, 80, 130])
    p_value = chi2_contingency(np.array([observed, expected]), correction=False).pvalue
    assert shift(observed, expected).p_value == pytest.approx(p_value)


def test_the_index_is_the_usual_one_less_what_chance_adds() -> None:
    """Of many pictures it is the sum of the differences of the shares times the logarithm of their ratio."""
    before, now = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    index = float(((now - before) * np.log(now / before)).sum())
    assert shift(now * 1e6, before * 1e6).population_stability_index == pytest.approx(index, abs=1e-3)


@pytest.mark.parametrize(("answers", "images"), [(50, 50), (100, 500), (500, 200), (500, 5000), (5000, 1000)])
def test_chance_is_no_drift(answers: int, images: int) -> None:
    """Of samples of the same kind, the index is small on average and no alarm fires, whichever their sizes are."""
    draw = np.random.default_rng(answers + images).multinomial
    shifts = [shift(draw(answers, SHARES).astype(float), draw(images, SHARES).astype(float)) for _ in range(300)]
    assert np.mean([each.population_stability_index for each in shifts]) < 0.05
    assert np.mean([each.p_value < 0.05 for each in shifts]) < 0.1
    assert not [each for each in shifts if each.population_stability_index > 0.2 and each.p_value < 0.001]


def test_what_was_never_seen_is_drift() -> None:
    """A bin that was empty before, or is empty now, gives a finite index, and an alarm."""
    for observed, expected in (([250.0, 0, 250], [0.0, 300, 300]), ([0.0, 0, 500], [200.0, 200, 200])):
        found = shift(np.array(observed), np.array(expected))
        assert 0.2 < found.population_stability_index < 20
        assert found.p_value < 1e-6


def test_answers_are_counted_where_the_reference_counts_them() -> None:
    """Each answer falls into a bin of its label and into one of each histogram; what is on an edge is above it."""
    baseline = Baseline(KNOWN, TELLING, None)
    counts = np.zeros(baseline.number)
    answers = [(1, 0.95, 3.5)] * 60 + [(0, 0.3, 0.5)] * 10 + [(0, 0.5, 1.0)] * 20 + [(0, 0.9, 2.0)] * 10
    for answer in answers:
        np.add.at(counts, baseline.bins(*answer), 1)
    assert counts.tolist() == [60, 40, 0, 10, 20, 70, 10, 20, 10, 60]  # green is the most frequent; then two histograms
    assert baseline.shifts(counts)["labels"] == (0.0, 1.0)
    assert baseline.shifts(counts)["confidence"] == (0.0, 1.0)
    assert baseline.shifts(counts)["familiarity"].p_value < 1e-5


def test_rare_labels_share_a_bin() -> None:
    """Of a thousand labels the frequent ones have bins of their own, so that what is kept stays small."""
    labels = tuple(f"label {number}" for number in range(1000))
    known = dataclasses.replace(KNOWN, images=1300, labels={**dict.fromkeys(labels, 1), "label 999": 301})
    baseline = Baseline(known, metadata("many", labels), None)
    assert baseline.bins(999, 0.1, 0.0)[0] == 0
    assert {baseline.bins(number, 0.1, 0.0)[0] for number in range(1000)} == set(range(256))


def test_a_version_without_a_threshold_is_not_asked_for_familiarity(tmp_path: Path) -> None:
    """Its engine does not tell it, whatever there is a reference for."""
    silent = baseline_of(tmp_path, dataclasses.replace(TELLING, familiarity=None), 0)
    assert silent is not None
    assert silent.compared == ("labels", "confidence")
    assert baseline_of(tmp_path, dataclasses.replace(TELLING, reference=None), 0) is None


def embedding_baseline(version: Path, numbers: np.ndarray, record: Metadata = TELLING) -> Baseline:
    """Return the baseline of a version with ``numbers`` as its reference of the embeddings, of two numbers."""
    (version / EXTRA).mkdir(exist_ok=True)
    (version / REFERENCE_EMBEDDING).write_bytes(numbers.astype("<f4").tobytes())
    baseline = baseline_of(version, dataclasses.replace(record, files={REFERENCE_EMBEDDING: "unchecked"}), 2)
    assert baseline is not None
    return baseline


def test_the_distance_is_in_units_of_the_spread(tmp_path: Path) -> None:
    """A mean that moved by as much as one picture usually differs from it is 1 away; by chance, it is about 0."""
    found = embedding_baseline(tmp_path, np.array([[1, 2], [0.3, 0.4]])).embedding
    assert found is not None
    assert found.distance(np.array([1.3, 2.4]), 10**9) == pytest.approx(1.0, abs=0.01)
    drawn = np.random.default_rng(0).normal([1, 2], [0.3, 0.4], (100, 200, 2)).mean(axis=1)
    assert np.mean([found.distance(mean, 200) for mean in drawn]) < 0.05


@pytest.mark.parametrize("numbers", [[[1, 2, 3], [1, 1, 1]], [[1, 2]], [[1, 2], [0, 0]], [[np.nan, 2], [1, 1]]])
def test_an_embedding_that_does_not_fit_is_not_compared(tmp_path: Path, numbers: list[list[float]]) -> None:
    """Of a reference of another size, without spread or with what is no number, the rest is compared all the same."""
    baseline = embedding_baseline(tmp_path, np.array(numbers))
    assert baseline.embedding is None
    assert baseline.compared == ("labels", "confidence", "familiarity")


def test_the_mix_to_expect_is_told_by_label(tmp_path: Path) -> None:
    """A label's share in the reference is a gauge, also one that no picture had; nothing is told of several labels."""
    thresholds = dict.fromkeys(TELLING.labels, 0.5)
    several = dataclasses.replace(TELLING, task="multi-label", thresholds=thresholds)
    for known, expected in ((TELLING, {"red": 0.4, "green": 0.6, "blue": 0.0}), (several, {})):
        registry = CollectorRegistry()
        Metrics(registry).of_engine("colours", 1, known, tmp_path)
        samples = [sample for metric in registry.collect() for sample in metric.samples]
        told = {sample.labels["label"]: sample.value for sample in samples if sample.name == EXPECTED}
        assert told == expected
