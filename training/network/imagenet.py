"""The labels of ImageNet, which the pretrained networks answer with."""

from pathlib import Path

VALIDATION_IMAGES = 50_000
LABELS_FROM = "WordNet 3.0, Copyright 2006 by Princeton University"


def labels() -> tuple[str, ...]:
    """Return the 1,000 labels in the order of the networks' outputs; their file has WordNet's licence."""
    lines = Path(__file__).with_name("imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))
