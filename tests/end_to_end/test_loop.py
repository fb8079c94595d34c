"""The loop that docs/loop.md tells: serve, meet another camera, label what it sends, train, and be right about it."""

import hashlib
import io
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw, ImageFilter

from tests.service.running import RunningService, metric, start, wait_for

pytestmark = [pytest.mark.process, pytest.mark.slow]

LABELS = ("disc", "square", "stripes")
TOKEN = "token-of-anna"  # noqa: S105 - of the tests
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
ANNA = {"reviewer": "anna-1234"}
LEARNED, SENT, REVIEWED = 24, 20, 40  # of each class, of each class, in all
WINDOW = 60  # answers that are compared with those of the version's own test


def photograph(label: str, seed: int, *, other_camera: bool = False) -> bytes:
    """Return a JPEG of 160x120 pixels with a shape at a place and in colours of its own; noise is in it.

    The other camera's are dark, blurred and grey.
    """
    random = np.random.default_rng([LABELS.index(label), seed, other_camera])
    ground, colour = random.integers(0, 110, 3), random.integers(140, 256, 3)
    image = Image.new("RGB", (160, 120), tuple(ground.tolist()))
    draw = ImageDraw.Draw(image)
    left, top, side = random.integers(5, 60), random.integers(5, 40), random.integers(45, 75)
    box = tuple(int(value) for value in (left, top, left + side, top + side))
    if label == "disc":
        draw.ellipse(box, fill=tuple(colour.tolist()))
    elif label == "square":
        draw.rectangle(box, fill=tuple(colour.tolist()))
    else:
        for row in range(0, 120, int(random.integers(12, 24))):
            draw.rectangle((0, row, 159, row + 6), fill=tuple(colour.tolist()))
    if other_camera:
        image = image.filter(ImageFilter.GaussianBlur(6)).convert("L").convert("RGB")
    pixels = np.asarray(image, np.float32) * (0.25 if other_camera else 1.0) + random.normal(0, 6, (120, 160, 3))
    content = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=90)
    return content.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder of pictures to train on."""
    for label in LABELS:
        (tmp_path / "shapes" / label).mkdir(parents=True)
        for seed in range(LEARNED):
            (tmp_path / "shapes" / label / f"{seed}.jpg").write_bytes(photograph(label, seed))
    return tmp_path / "shapes"


@pytest.fixture
def service(root: Path, data: Path, tmp_path: Path) -> Iterator[RunningService]:
    """A service with a first version, which keeps all that it is sent, and puts what is labelled beside the rest."""
    train(root, data, tmp_path)
    service = start(
        {
            "MODEL_DIR": str(tmp_path / "models"),
            "MODEL_POLL_SECONDS": "0.2",
            "DRAIN_SECONDS": "0",
            "CAPTURE_DIR": str(tmp_path / "captured"),
            "REVIEWED_DIR": str(data),
            "CAPTURE_SHARE": "1",
            "DRIFT_WINDOW": str(WINDOW),
            "API_TOKENS": f"anna:{hashlib.sha256(TOKEN.encode()).hexdigest()}",
            "WITHOUT_TOKEN": "probes,metrics,predictions",
        }
    )
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.kill()


def train(root: Path, data: Path, folder: Path) -> str:
    """Train and publish the next version; return what is printed."""
    command = [sys.executable, "-m", "training", "--data", str(data), "--minutes", "0", "--cpu", "--no-int8"]
    command += ["--backbone", "EfficientNetLite0", "--image-size", "96"]
    places = ["--models", str(folder / "models"), "--run", str(folder / "run")]
    done = subprocess.run([*command, *places], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def accuracy(service: RunningService, pictures: Mapping[bytes, str]) -> float:
    """Return the share of ``pictures``, each with its label, that the service is right about; it may keep none."""
    address, headers = f"{service.url}/predict", {"X-Darkroom-Capture": "no"}
    answers = [
        requests.post(address, files={"image": picture}, headers=headers, timeout=30).json() for picture in pictures
    ]
    right = [
        answer["predictions"][0]["label"] == label for answer, label in zip(answers, pictures.values(), strict=True)
    ]
    return right.count(True) / len(right)


def drifted(service: RunningService) -> bool:
    """Say whether the alert ``AnswersDrifted`` has a reason now; tests/monitoring plays its rule to Prometheus."""
    drift = service.get("/model").json()["drift"]
    shifts = [drift[name] for name in ("labels", "confidence", "familiarity")]
    moved = any(shift["population_stability_index"] > 0.2 and shift["p_value"] < 0.001 for shift in shifts)
    return moved or drift["embedding_distance"] > 0.25


def ask(service: RunningService, path: str, body: Any = None) -> Any:
    """Return the answer to a reviewer."""
    method = "GET" if body is None else "POST"
    answer = requests.request(method, f"{service.url}/captured/{path}", json=body, headers=HEADERS, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def review(service: RunningService, labels: Mapping[str, str], count: int) -> None:
    """Label so many pictures as a person would, by their ids."""
    left = count
    while left:
        taken = ask(service, "take", {**ANNA, "count": min(8, left)})["pictures"]
        assert taken, "there are no more"
        for picture in taken:
            ask(service, f"{picture['id']}/review", {**ANNA, "label": labels[picture["id"]]})
        left -= len(taken)


def test_what_another_camera_sends_comes_back_labelled(
    service: RunningService, root: Path, data: Path, tmp_path: Path
) -> None:
    """The accuracy in production is told truly, and the version that learned the pictures is better at such."""
    known = {photograph(label, 1000 + seed): label for seed in range(20) for label in LABELS}
    assert accuracy(service, known) > 0.9
    assert not drifted(service)

    sent = {photograph(label, seed, other_camera=True): label for seed in range(SENT) for label in LABELS}
    right = 0
    for picture, label in sent.items():
        right += service.predict(picture).json()["predictions"][0]["label"] == label
    wait_for(lambda: metric(service, "captures_total") == len(sent), service.log)
    assert drifted(service)

    labels = {hashlib.sha256(picture).hexdigest(): label for picture, label in sent.items()}
    review(service, labels, REVIEWED)
    summary = ask(service, "summary")
    assert (summary["reviewed"], summary["waiting"]) == (REVIEWED, len(sent) - REVIEWED)
    [measured] = summary["accuracy"]
    assert measured["answers"] == REVIEWED
    assert measured["low"] <= right / len(sent) <= measured["high"]
    assert len(list(data.glob("*/reviewed-*.jpg"))) == REVIEWED

    unseen = {photograph(label, 2000 + seed, other_camera=True): label for label in LABELS for seed in range(20)}
    before = accuracy(service, unseen)
    begun = time.monotonic()
    told = train(root, data, tmp_path)
    seconds = time.monotonic() - begun
    assert f"{REVIEWED} of the {3 * LEARNED + REVIEWED} pictures came back from the service" in told
    wait_for(lambda: service.get("/model").json()["version"] == 2, service.log)
    after = accuracy(service, unseen)
    assert after > before + 0.1, f"{before:.0%} before, {after:.0%} after"
    # As many of each camera as it has learned.
    both = {photograph(label, 3000 + seed, other_camera=seed % 3 == 0): label for seed in range(21) for label in LABELS}
    assert accuracy(service, both) > 0.9
    assert not drifted(service)
    low, high = measured["low"], measured["high"]
    print(f"\nof the other camera's pictures, right: {right / len(sent):.1%} of the {len(sent)} that were sent")
    print(f"by review: {measured['right']} of {REVIEWED} (95%: {low:.1%} to {high:.1%})")
    print(f"of {len(unseen)} unseen ones: {before:.1%} before, {after:.1%} after a training of {seconds:.0f} s")
