"""A record says what its training and all that it built on held out, in today's words and in older ones."""

import dataclasses
import json
from typing import Any

from training.fit.lineage import Lineage, Origin, RunSettings, in_words
from training.fit.recipe import recipe


def held_out(record: dict[str, Any]) -> int:
    """Return what a record says that no training has seen."""
    return Lineage.read(record).held_out()


def smoothing(record: dict[str, Any]) -> float | None:
    """Return the label smoothing that a record says."""
    return Lineage.read(record).smoothing()


def test_held_out_is_what_no_cycle_has_seen() -> None:
    """Images that the first cycle or a teacher was trained on are not held out, though the last one leaves them out."""
    first = {"validation_images": 100}
    assert held_out(first) == 100
    assert held_out({"validation_images": 500, "start_from": {"training": first}}) == 100
    assert (
        Lineage.read({"validation_images": 500, "start_from": {"training": {"validation_images": 0}}}).held_out() == 0
    )
    assert held_out({"validation_images": 500, "start_from": None}) == 500
    assert (
        Lineage.read({"validation_images": 500, "teachers": [{"training": {"validation_images": 500}}]}).held_out()
        == 500
    )
    assert held_out({"validation_images": 500, "teachers": [{"training": {}}, {"training": first}]}) == 0
    assert held_out({"validation_images": 500, "teachers": [{"training": first}, {"training": {}}]}) == 0
    assert held_out({"validation_images": 500, "teachers": None}) == 500
    assert (
        Lineage.read({"validation_images": 500, "teacher": {"training": first}}).held_out() == 100
    )  # as older versions say it
    assert held_out({}) == 0


def test_what_a_teacher_smooths_is_not_known() -> None:
    """The smoothing of the labels is that of the settings, and to be found where a teacher's answers replaced them."""
    assert smoothing({"label_smoothing": 0.1, "teachers": None}) == 0.1
    assert smoothing({"label_smoothing": 0.0, "teachers": [{"name": "shade"}]}) is None
    assert (
        Lineage.read({"label_smoothing": 0.0, "teacher": {"name": "shade"}}).smoothing() is None
    )  # as older versions say it


def test_a_record_is_read_as_it_was_written() -> None:
    """Through JSON, which keeps checkpoints and metadata, a run's settings say what it held out and who taught it."""
    first = RunSettings(recipe("smoke"), None, "digest", "32x32 pixels", validation_images=200)
    version = Origin("smoke", 1, 0.9, 60.0, first.record())
    second = RunSettings(recipe("smoke"), None, "digest", "32x32 pixels", validation_images=300, start_from=version)
    taught = RunSettings(
        recipe("smoke"), None, "digest", "32x32 pixels", validation_images=100, teachers=(version, version)
    )
    for settings, images, share in ((first, 200, 0.2), (second, 200, 0.2), (taught, 100, None)):
        record = json.loads(json.dumps(settings.record()))
        assert record == settings.record()
        assert (held_out(record), smoothing(record)) == (images, share)
    words = "smoke version 1: 90.00% after 3 epochs, 1.0 minutes"
    assert in_words(taught.record()["teachers"]) == f"{words}; {words}"
    imported = Origin("imagenet", 1, 0.776, 0.0, {"backbone": "EfficientNetLite2"})
    assert in_words(dataclasses.asdict(imported)) == "imagenet version 1: 77.60%"
