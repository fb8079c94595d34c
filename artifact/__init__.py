"""The contract between the trainer and the service: what a model version is on disk.

A model version is the folder ``<models>/<name>/<integer>/``: a TensorFlow SavedModel, in the layout that TensorFlow
Serving reads, with Darkroom's own files in ``assets.extra/``. This package needs nothing but the standard library.
"""

from artifact.errors import InvalidVersion
from artifact.layout import latest, models_in, passed_over, version_path, versions
from artifact.metadata import (
    Calibration,
    Familiarity,
    Histogram,
    Input,
    Int8,
    Metadata,
    Metrics,
    MultiLabel,
    Reference,
    read_metadata,
)
from artifact.publish import Draft, draft
from artifact.validate import validate

__all__ = [
    "Calibration",
    "Draft",
    "Familiarity",
    "Histogram",
    "Input",
    "Int8",
    "InvalidVersion",
    "Metadata",
    "Metrics",
    "MultiLabel",
    "Reference",
    "draft",
    "latest",
    "models_in",
    "passed_over",
    "read_metadata",
    "validate",
    "version_path",
    "versions",
]
