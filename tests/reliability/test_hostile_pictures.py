"""Pictures that are damaged, or made to be slow or large: they cost an error, and nobody else notices."""

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.bombs import HOSTILE
from tests.mutations import mutated
from tests.reliability.campaign import Campaign
from tests.reliability.others import Others
from tests.service.conftest import StartService
from tests.service.pictures import encoded
from tests.stack.pods import Container, docker, running
from tests.stack.service_image import built
from tests.stack.test_pod import pod_of

DEADLINE = 10.0  # the service's own, in seconds
ANSWERS = {200, 400, 413, 415, 503, 504}
MEBIBYTE = 1024 * 1024

VARIANTS = {
    "JPEG": ({}, {"progressive": True}, {"icc_profile": b"profile" * 40, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
    "PNG": ({}, {"icc_profile": b"profile" * 40}),
    "GIF": ({}, {"comment": b"comment"}),
    "WEBP": ({}, {"lossless": True}),
    "AVIF": ({"speed": 10},),
    "HEIF": ({}, {"quality": -1}),
    "BMP": ({},),
    "TIFF": ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}, {"compression": "jpeg"}),
}


def good(kind: str) -> list[bytes]:
    """Return intact pictures of a format, in two sizes and in what else it can hold."""
    image = Image.effect_mandelbrot((90, 70), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    pictures = [
        encoded(each, kind, **options) for options in VARIANTS[kind] for each in (image, image.resize((32, 32)))
    ]
    if kind in ("PNG", "TIFF", "WEBP", "AVIF", "HEIF"):
        pictures.append(encoded(image.convert("RGBA"), kind))
    if kind in ("PNG", "TIFF"):
        pictures.append(encoded(image.convert("I").convert("I;16"), kind))
    return pictures


def post(session: requests.Session, url: str, content: bytes) -> tuple[int, float]:
    """Return the status of a picture, and the seconds that it took."""
    started = time.monotonic()
    status = session.post(f"{url}/predict", content, headers={"Content-Type": "image/png"}, timeout=60).status_code
    return status, time.monotonic() - started


def post_at_once(url: str, contents: Sequence[bytes]) -> list[tuple[int, float]]:
    """Post ``contents`` at the same time; return the status and the seconds of each."""
    with ThreadPoolExecutor(len(contents)) as pool:
        return list(pool.map(lambda content: post(requests.Session(), url, content), contents))


def metric(url: str, name: str) -> float:
    """Return the value of one of the service's metrics."""
    (value,) = re.findall(rf"^{name} (\S+)$", requests.get(f"{url}/metrics", timeout=30).text, re.MULTILINE)
    return float(value)


def of_memory(pod: Container, new: str, old: str) -> str:
    """Return a file of the container's control group, whose name depends on the version of those."""
    folder = "/sys/fs/cgroup"
    return docker("exec", pod.name, "sh", "-c", f"cat {folder}/{new} 2>/dev/null || cat {folder}/memory/{old}")


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.campaign(
    "damaged JPEG, PNG, GIF, WebP, AVIF, HEIC, BMP and TIFF, from a seeded mutator, one after the other",
    bar="no crash, no 5xx, none over 1 s, memory grows by less than 50 MB",
)
def test_damaged_pictures(campaign: Campaign, start_service: StartService) -> None:
    """Each is answered, with the label of what is left of it or with an error of the client's."""
    service, session = start_service(), requests.Session()
    pictures = campaign.size(400, 15_000)  # of each format
    for kind in VARIANTS:  # the memory that is held from the first picture on is no growth
        for content in mutated(good(kind), 50, seed=1):
            post(session, service.url, content)
    before = metric(service.url, "darkroom_memory_bytes")
    statuses: Counter[int] = Counter()
    longest = 0.0
    for kind in VARIANTS:
        for content in mutated(good(kind), pictures, seed=2):
            status, seconds = post(session, service.url, content)
            statuses[status] += 1
            longest = max(longest, seconds)
    growth = metric(service.url, "darkroom_memory_bytes") - before
    starts = metric(service.url, "darkroom_worker_starts_total")
    campaign.report(
        pictures=statuses.total(), answered=statuses[200], longest_ms=1000 * longest, growth_MB=growth / 1e6
    )
    assert set(statuses) <= {200, 400, 413, 415}, statuses
    assert starts == 1, service.log()
    assert longest < 1
    assert growth < 50e6


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.campaign(
    "pictures made to be slow or large, alone and eight at once, while others ask 50 times a second",
    bar="each is answered by the deadline, the others' p99 stays below 100 ms (short: 500 ms), and all of theirs are "
    "answered",
)
def test_slow_and_large_pictures(campaign: Campaign, start_service: StartService) -> None:
    """Others wait no longer than without them, and no worker ends."""
    service = start_service()
    names = list(HOSTILE) if campaign.whole else list(HOSTILE)[::3]
    slowest, longest, statuses = 0.0, 0.0, Counter[int]()
    for name in names:
        content = HOSTILE[name]()
        with Others(service.url) as others:
            answers = [post(requests.Session(), service.url, content), *post_at_once(service.url, [content] * 8)]
            time.sleep(1)
        assert not others.lost, f"{name}: {others.lost}"
        assert not others.failed_probes(), f"{name}: {others.failed_probes()}"
        slowest = max(slowest, others.percentile(99))
        longest = max(longest, *(seconds for _, seconds in answers))
        statuses.update(status for status, _ in answers)
    campaign.report(
        kinds=len(names), others_p99_ms=slowest, longest_answer_s=longest, statuses=str(dict(sorted(statuses.items())))
    )
    assert set(statuses) <= ANSWERS
    assert longest < DEADLINE + 2
    assert slowest < campaign.size(500, 100)
    assert metric(service.url, "darkroom_worker_starts_total") == 1, service.log()


@pytest.fixture(scope="module")
def image(root: Path, docker_engine: None) -> Iterator[str]:
    """Return the tag of the service's image."""
    with built(root) as tag:
        yield tag


@pytest.mark.stack
@pytest.mark.campaign(
    "pictures made to be slow or large, in the pod of the manifests, which has 1 GiB",
    bar="no worker is killed, and it answers all the while",
)
def test_large_pictures_in_a_small_pod(campaign: Campaign, image: str, tmp_path: Path) -> None:
    """What does not fit into the memory is a 413 or a 503."""
    with running(pod_of("minimal"), image, {}, tmp_path) as pod:
        pod.await_probe("startupProbe")
        url, statuses = pod.url(), Counter[int]()
        with Others(url, rate=20) as others:
            for make in HOSTILE.values():
                content = make()
                statuses.update(status for status, _ in post_at_once(url, [content]))
                statuses.update(status for status, _ in post_at_once(url, [content] * 8))
            mixed = [make() for make in HOSTILE.values()]
            statuses.update(status for status, _ in post_at_once(url, mixed))
        peak = int(of_memory(pod, "memory.peak", "memory.max_usage_in_bytes"))
        starts = metric(url, "darkroom_worker_starts_total")
        killed = pod.inspect()["State"]["OOMKilled"]
        events = of_memory(pod, "memory.events", "memory.oom_control")
        campaign.report(
            peak_MiB=peak / MEBIBYTE, statuses=str(dict(sorted(statuses.items()))), others_p99_ms=others.percentile(99)
        )
        assert not killed
        assert "oom_kill 0\n" in events, events
        assert starts == 1, pod.log()
        assert set(statuses) <= ANSWERS
        assert not others.failed_probes(), others.failed_probes()
