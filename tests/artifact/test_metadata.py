"""The metadata of a version, as it is written and read."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from artifact import (
    Calibration,
    Familiarity,
    Histogram,
    Int8,
    InvalidVersion,
    Metadata,
    MultiLabel,
    Reference,
    read_metadata,
)
from artifact.layout import METADATA

INT8 = Int8("made-up validation", images=200, accuracy=0.99, float32_accuracy=1.0, calibration_images=100)


CALIBRATION = Calibration(
    temperature=0.5,
    measured_on="made-up validation",
    images=200,
    negative_log_likelihood=0.2,
    negative_log_likelihood_before=0.4,
    expected_calibration_error=0.01,
    expected_calibration_error_before=0.1,
)
FAMILIARITY = Familiarity(threshold=1.5, share=0.95, measured_on="made-up validation", images=200)
INTERVALS: Any = {"micro_f1": [0.7, 0.9]}  # JSON knows no tuples
MULTI_LABEL = MultiLabel(0.9, 0.8, 0.7, INTERVALS, "made-up validation", {"a": {"slope": 2, "bias": 0}})
REFERENCE = Reference(
    measured_on="made-up test",
    images=200,
    labels={},
    confidence=Histogram((0.5, 0.9), (20, 80, 100)),
    familiarity=Histogram((1.5,), (50, 150)),
)
OTHERS = {"noise": {"auroc": 0.99, "unfamiliar": 0.9}}


def write(version: Path, record: Metadata) -> None:
    """Replace the metadata of a version."""
    (version / METADATA).write_text(record.to_json(), encoding="utf-8")


def test_what_is_written_reads_back(version: Path) -> None:
    """A record is the same after a round through JSON, with and without each part that can be left out."""
    plain = read_metadata(version)
    measured = dataclasses.replace(plain.metrics, out_of_distribution=OTHERS)
    reference = dataclasses.replace(REFERENCE, labels={plain.labels[0]: 200})
    optional = {"int8": INT8, "calibration": CALIBRATION, "familiarity": FAMILIARITY, "reference": reference}
    whole = dataclasses.replace(plain, metrics=measured, **optional)  # type: ignore[arg-type]  # by name
    records = [
        plain,
        whole,
        dataclasses.replace(whole, int8=None),
        dataclasses.replace(whole, calibration=None),
        dataclasses.replace(whole, familiarity=None),
        dataclasses.replace(whole, reference=None),
        dataclasses.replace(whole, reference=dataclasses.replace(reference, familiarity=None)),
        dataclasses.replace(whole, metrics=dataclasses.replace(measured, expected_calibration_error=None)),
    ]
    thresholds = dict.fromkeys(plain.labels, 0.25)
    records.append(dataclasses.replace(whole, task="multi-label", thresholds=thresholds, multi_label=MULTI_LABEL))
    for record in records:
        write(version, record)
        assert read_metadata(version) == record


def test_what_a_version_does_not_have_is_not_written(root: Path) -> None:
    """The JSON of the bundled version has its optional parts, and without them does not speak of them."""
    bundled = read_metadata(root / "models" / "cifar10" / "5")
    written = json.loads(bundled.to_json())
    assert written == json.loads((root / "models" / "cifar10" / "5" / METADATA).read_text(encoding="utf-8"))
    bare = dataclasses.replace(bundled, int8=None, calibration=None, familiarity=None, reference=None)
    optional = {"int8", "calibration", "familiarity", "reference"}
    assert written.keys() - json.loads(bare.to_json()).keys() == optional


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"task": "several"}, "task must be multi-label"),
        ({"task": "multi-label"}, "a multi-label task has thresholds"),
        ({"thresholds": {"a": 0.5}}, "no other has"),
        ({"task": "multi-label", "thresholds": {"a": 0.5}}, "each label to a number from 0 to 1"),
        ({"task": "multi-label", "thresholds": "low"}, "each label to a number from 0 to 1"),
        ({"task": "multi-label", "thresholds": float("nan")}, "each label to a number from 0 to 1"),
        ({"task": "multi-label", "thresholds": 1.5}, "each label to a number from 0 to 1"),
    ],
)
def test_a_task_and_its_thresholds_belong_together(version: Path, changes: dict[str, object], fault: str) -> None:
    """Whoever reads a version may rely on a threshold for each label where it tells several, and on none elsewhere."""
    record = json.loads((version / METADATA).read_text(encoding="utf-8"))
    if isinstance(changes.get("thresholds"), float):
        changes = {**changes, "thresholds": dict.fromkeys(record["labels"], changes["thresholds"])}
    (version / METADATA).write_text(json.dumps({**record, **changes}), encoding="utf-8")
    with pytest.raises(InvalidVersion, match=fault):
        read_metadata(version)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": 201},
        {"labels": {"nothing like it": 200}},
        {"labels": {"LABEL": "200"}},
        {"labels": ["LABEL"]},
        {"confidence": {"edges": [0.5], "counts": [20, 80, 100]}},
        {"confidence": {"edges": [0.9, 0.5], "counts": [20, 80, 100]}},
        {"confidence": {"edges": ["0.5", "0.9"], "counts": [20, 80, 100]}},
        {"confidence": {"edges": [0.5, 0.9], "counts": [-20, 120, 100]}},
        {"confidence": {"edges": [0.5, 0.9], "counts": [20.5, 79.5, 100]}},
        {"confidence": [0.5, 0.9]},
        {"familiarity": {"edges": [None], "counts": [50, 150]}},
        {"familiarity": 1.5},
    ],
)
def test_a_reference_that_cannot_be_compared_with_is_refused(version: Path, changes: dict[str, object]) -> None:
    """It would break who compares with it later, far from its cause; what cannot be read is refused as such."""
    label = read_metadata(version).labels[0]
    record = json.loads((version / METADATA).read_text(encoding="utf-8"))
    told = json.loads(json.dumps({**dataclasses.asdict(REFERENCE), "labels": {"LABEL": 200}, **changes}))
    record["reference"] = json.loads(json.dumps(told).replace("LABEL", label))
    (version / METADATA).write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(InvalidVersion, match=r"reference must count its images|does not have the expected fields"):
        read_metadata(version)
