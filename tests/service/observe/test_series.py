"""Every series is there before its first event: Prometheus sees no increase in the first value of one."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from artifact import Histogram, Reference
from service.observe.metrics import Metrics
from service.web.errors import REASONS
from tests.models import metadata
from tests.service.pictures import plain

PNG = {"Content-Type": "image/png"}


def samples(client: FlaskClient) -> dict[str, float]:
    """Return all that ``/metrics`` tells, by name and labels."""
    lines = re.findall(r"^(darkroom_\S+?(?:\{.*\})?) (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def counted(client: FlaskClient) -> tuple[dict[str, float], dict[str, float]]:
    """Return what is told before and after a mix of pictures, good, unfamiliar, bad, and of a kind that is not read."""
    before = samples(client)
    pictures = [plain("red")] * 3 + [plain("black")] * 5 + [plain("red")[:60], b"words"]
    statuses = [client.post("/predict", data=picture, headers=PNG).status_code for picture in pictures]
    assert statuses == [200] * 8 + [400, 415]
    batch = client.post("/predict/batch", json={"images": ["words", ""]})
    assert batch.status_code == 200
    return before, samples(client)


def increase(before: dict[str, float], after: dict[str, float], name: str) -> float:
    """Return what a counter grew by as Prometheus sees it, who has not seen what was there before a series was."""
    series = [key for key in after if key.partition("{")[0] == name]
    assert series, name
    return sum(after[key] - before[key] for key in series if key in before)


def test_the_share_of_unfamiliar_pictures_is_that_of_what_was_sent(telling: FlaskClient) -> None:
    """Of eight pictures five are black; the counters of the alert and of the dashboard were born together."""
    before, after = counted(telling)
    assert increase(before, after, "darkroom_predictions_total") == 8
    assert increase(before, after, "darkroom_unfamiliar_total") == 5
    assert increase(before, after, "darkroom_top_probability_count") == 8


def test_all_series_of_a_version_begin_at_nought(telling: FlaskClient) -> None:
    """Whatever is counted of a version is there at 0 when it is loaded, for each of its labels."""
    before, after = counted(telling)
    of_version = {key: value for key, value in after.items() if 'version="1"' in key and "model_workers" not in key}
    assert [key for key in of_version if key not in before] == []
    assert len([key for key in before if key.startswith("darkroom_predictions_total")]) == 3
    counters = [key for key in of_version if re.search(r"_(?:total|count|sum|bucket)(?:\{|$)", key)]
    assert len(counters) > 20
    assert {before[key] for key in counters} == {0.0}


@pytest.mark.parametrize("labels", [100, 101, 1000])
def test_labels_come_one_by_one_where_a_version_has_very_many(labels: int, tmp_path: Path) -> None:
    """Up to 100 are there at 0; of 1,000 in each of ten versions, /metrics would take a third of a second."""
    names = tuple(f"label {number}" for number in range(labels))
    reference = Reference("a test", labels, dict.fromkeys(names, 1), Histogram((0.5,), (labels, 0)))
    known = dataclasses.replace(metadata("many", names), reference=reference)
    registry = CollectorRegistry()
    engine = Metrics(registry).of_engine("many", 1, known, tmp_path)

    def told(name: str) -> dict[str, float]:
        samples = (sample for family in registry.collect() for sample in family.samples)
        return {sample.labels["label"]: sample.value for sample in samples if sample.name == f"darkroom_{name}"}

    few = labels <= 100
    assert told("predictions_total") == (dict.fromkeys(names, 0.0) if few else {})
    outputs = np.full((3, labels), 0.5 / labels, np.float32)
    outputs[[0, 1, 2], [7, 7, 50]] = 0.9
    engine.classified(outputs)
    assert {name: images for name, images in told("predictions_total").items() if images} == {
        "label 7": 2,
        "label 50": 1,
    }
    assert told("label_share_expected").keys() == told("predictions_total").keys()
    assert set(told("label_share_expected").values()) == {1 / labels}
    assert len(told("predictions_total")) == (labels if few else 2)


def test_answers_and_errors_begin_at_nought(telling: FlaskClient) -> None:
    """The first error of a kind is an increase, whichever route it is on; a picture of a batch has a reason as well."""
    before, after = counted(telling)
    posted = [key for key in after if key.startswith("darkroom_requests_total") and 'method="POST"' in key]
    assert [key for key in posted if before.get(key) != 0] == []
    reasons = {reason: f'darkroom_errors_total{{reason="{reason}"}}' for reason in REASONS}
    assert {before[key] for key in reasons.values()} == {0.0}
    told = {reason: after[key] for reason, key in reasons.items() if after[key]}
    assert told == {"invalid_image": 1, "unsupported_image": 1, "invalid_request": 2}


def test_times_below_a_millisecond_are_told_apart(telling: FlaskClient) -> None:
    """A small picture takes less than a millisecond, of which one bucket would say nothing."""
    bounds = {
        float(bound) for key in samples(telling) for bound in re.findall(r'engine_seconds_bucket.*le="([\d.]+)"', key)
    }
    assert len([bound for bound in bounds if bound < 0.001]) >= 3
