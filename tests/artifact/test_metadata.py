"""The metadata of a version, as it is written and read."""

import dataclasses
import json
from pathlib import Path

from artifact import Calibration, Familiarity, Int8, Metadata, read_metadata
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
OTHERS = {"noise": {"auroc": 0.99, "unfamiliar": 0.9}}


def write(version: Path, record: Metadata) -> None:
    """Replace the metadata of a version."""
    (version / METADATA).write_text(record.to_json(), encoding="utf-8")


def test_what_is_written_reads_back(version: Path) -> None:
    """A record is the same after a round through JSON, with and without each part that can be left out."""
    plain = read_metadata(version)
    measured = dataclasses.replace(plain.metrics, out_of_distribution=OTHERS)
    whole = dataclasses.replace(plain, int8=INT8, calibration=CALIBRATION, familiarity=FAMILIARITY, metrics=measured)
    records = [
        plain,
        whole,
        dataclasses.replace(whole, int8=None),
        dataclasses.replace(whole, calibration=None),
        dataclasses.replace(whole, familiarity=None),
        dataclasses.replace(whole, metrics=dataclasses.replace(measured, expected_calibration_error=None)),
    ]
    for record in records:
        write(version, record)
        assert read_metadata(version) == record


def test_what_a_version_does_not_have_is_not_written(root: Path) -> None:
    """The JSON of the bundled version has its optional parts, and without them does not speak of them."""
    bundled = read_metadata(root / "models" / "cifar10" / "5")
    written = json.loads(bundled.to_json())
    assert written == json.loads((root / "models" / "cifar10" / "5" / METADATA).read_text(encoding="utf-8"))
    bare = dataclasses.replace(bundled, int8=None, calibration=None, familiarity=None)
    optional = {"int8", "calibration", "familiarity"}
    assert written.keys() - json.loads(bare.to_json()).keys() == optional
