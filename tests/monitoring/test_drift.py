"""The alarm on drift, of a running service by Prometheus' own rule: silent on chance, and loud on other pictures."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import requests
import yaml
from PIL import Image, ImageFilter

from tests.models import SIDE, add_reference, copy
from tests.monitoring.conftest import Promtool
from tests.monitoring.watched import PROMETHEUS
from tests.service.running import RunningService, start

WINDOW = 500
WINDOWS = 20
SAMPLES = 40  # of each window, every 15 seconds: twice as long as the alarm waits

Pictures = npt.NDArray[np.uint8]  # [N, SIDE, SIDE, 3]
Samples = dict[str, float]
"""What was told at one moment, by the name of each series with its labels."""


def drawn(seed: int, count: int, colours: tuple[int, ...] = (0, 1, 2)) -> Pictures:
    """Draw pictures of coarse noise in which one of the channels is brighter, each of ``colours`` as often."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(140, size=(count, 8, 8, 3))
    coarse[np.arange(count), :, :, rng.choice(colours, count)] += rng.integers(30, 110, size=(count, 1, 1))
    return np.kron(coarse, np.ones((1, SIDE // 8, SIDE // 8, 1))).astype(np.uint8)


def of_another_camera(pictures: Pictures) -> Pictures:
    """Return the pictures as a camera with another lens and less light would take them."""
    blurred = [Image.fromarray(picture).filter(ImageFilter.GaussianBlur(2)) for picture in pictures]
    return (np.stack([np.asarray(picture) for picture in blurred]) * 0.7).astype(np.uint8)


@pytest.fixture(scope="module")
def service(embedding: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with two workers, whose version knows what it answers to 400 drawn pictures."""
    models = tmp_path_factory.mktemp("models")
    add_reference(copy(embedding, models, 1, threshold=4.0), drawn(1000, 400))
    running = start({"MODEL_DIR": str(models), "WORKERS": "2", "DRIFT_WINDOW": str(WINDOW)})
    running.wait_until_ready()
    yield running
    running.kill()


def told_after(service: RunningService, pictures: Pictures) -> Samples:
    """Have ``pictures`` classified, each part on a connection of its own; return what is told of drift then."""
    for part in np.array_split(pictures, 10):
        headers = {"Content-Type": "application/octet-stream"}
        answer = requests.post(f"{service.url}/predict/batch", data=part.tobytes(), headers=headers, timeout=30)
        assert answer.status_code == 200
    found = re.findall(r"^(darkroom_drift_\w+{.*}) (\S+)$", service.get("/metrics").text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def fired(promtool: Promtool, folder: Path, told: list[Samples]) -> None:
    """Play what was told to the rules, one after the other, and check that the alarm fires at the last and only there.

    The alarm is that of ``docker/prometheus``, and promtool says so where it does otherwise.
    """
    shutil.copy(PROMETHEUS / "alerts.rules.yml", folder)
    moments = [(number + 1) * SAMPLES * 15 - 15 for number in range(len(told))]  # seconds, at the end of each
    alarm = 'count(ALERTS{alertname="AnswersDrifted", alertstate="firing"}) > bool 0'

    def expected(last: bool) -> list[dict[str, Any]]:
        return [{"labels": "{}", "value": 1}] if last else []

    tested = {
        "name": "what a service told",
        "interval": "15s",
        "input_series": [
            {"series": name, "values": " ".join(f"{samples[name]:.12f}x{SAMPLES - 1}" for samples in told)}
            for name in told[0]
        ],
        "promql_expr_test": [
            {"expr": alarm, "eval_time": f"{moment}s", "exp_samples": expected(moment == moments[-1])}
            for moment in moments
        ],
    }
    file = folder / "drift.test.yml"
    file.write_text(yaml.safe_dump({"rule_files": ["alerts.rules.yml"], "tests": [tested]}), encoding="utf-8")
    promtool("test", "rules", str(file))


@pytest.mark.containers
@pytest.mark.process
@pytest.mark.parametrize("other", ["another camera", "other classes"])
def test_the_alarm_fires_on_other_pictures_alone(
    service: RunningService, promtool: Promtool, tmp_path: Path, other: str
) -> None:
    """Twenty windows of pictures like those of the test do not set it off, and 500 others do."""
    told = [told_after(service, drawn(seed, WINDOW)) for seed in range(WINDOWS)]
    assert len(told[0]) == 2 * 3 + 2  # an index and a p-value of each; how many answers, and the embedding
    unlike = of_another_camera(drawn(99, WINDOW)) if other == "another camera" else drawn(99, WINDOW, (0,))
    told.append(told_after(service, unlike))
    fired(promtool, tmp_path, told)


@pytest.mark.process
def test_every_worker_tells_of_all(service: RunningService) -> None:
    """Whichever is asked, by Prometheus or at /model, it knows the last answers of both."""
    told_after(service, drawn(7, WINDOW))
    told = [service.get("/model").json()["drift"] for _ in range(20)]
    assert all(answer == told[0] for answer in told)
    assert WINDOW <= told[0]["answers"] <= 1.1 * WINDOW + 50  # a part is counted at once
    assert told[0].keys() == {"answers", "labels", "confidence", "familiarity", "embedding_distance"}
    assert told[0]["confidence"].keys() == {"population_stability_index", "p_value"}
