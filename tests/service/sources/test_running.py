"""A running service that takes its models from a real S3 server, through updates and failures, and loses no request."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from artifact import versions
from tests.models import copy
from tests.object_store import SECRET, Bucket, S3Server, proxy, s3_server
from tests.service.clients import asking
from tests.service.pictures import plain
from tests.service.running import RunningService, metric, run_to_the_end, start, wait_for, workers

pytestmark = pytest.mark.process

Begin = Callable[..., RunningService]


@pytest.fixture
def server() -> Iterator[S3Server]:
    """A server of the test's own, which it may stop."""
    with s3_server() as running:
        running.start()
        yield running


@pytest.fixture
def bucket(server: S3Server) -> Bucket:
    """A bucket of that server."""
    return server.bucket("running")


@pytest.fixture
def begin(bucket: Bucket, tmp_path: Path) -> Iterator[Begin]:
    """Starts the service with the bucket for its source and an empty folder; stops it after the test."""
    with ExitStack() as stack:

        def start_it(*, ready: bool = True, **environment: str) -> RunningService:
            running = start(
                {
                    "MODEL_DIR": str(tmp_path / "models"),
                    "MODEL_SOURCE": bucket.address,
                    "MODEL_SOURCE_POLL_SECONDS": "0.2",
                    "MODEL_POLL_SECONDS": "0.1",
                    "DRAIN_SECONDS": "0",
                    **bucket.environment,
                    **environment,
                }
            )
            stack.callback(running.kill)
            if ready:
                running.wait_until_ready()
            return running

        yield start_it


def put(bucket: Bucket, source: Path, tmp_path: Path, number: int, labels: tuple[str, ...]) -> None:
    """Put a version whose labels tell which one answered."""
    bucket.put_version(copy(source, tmp_path / "made", number, labels=labels), "colours", number)


def version_of(running: RunningService) -> int:
    """Return the version that answers now; 0 where none does."""
    model = running.get("/health").json()["model"]
    return int(model["version"]) if model else 0


def test_an_update_and_a_source_that_dies_lose_no_request(
    begin: Begin, bucket: Bucket, server: S3Server, published: Path, tmp_path: Path
) -> None:
    """Under load a new version comes from the bucket and answers; what is there goes on when the bucket is gone.

    That holds after a restart as well, and the service follows the bucket again when it is back.
    """
    put(bucket, published, tmp_path, 1, ("one", "g", "b"))
    running = begin()
    assert version_of(running) == 1
    with asking(running, clients=2) as answers:
        put(bucket, published, tmp_path, 2, ("two", "g", "b"))
        wait_for(lambda: version_of(running) == 2, running.log)
        server.stop()
        wait_for(lambda: metric(running, "source_failures_total") >= 2, running.log)
        assert running.status("/health/ready") == 200
    assert answers.failures == []
    assert answers.count() > 20
    assert "fetched version 2 of colours from s3://running" in running.log()
    assert metric(running, "source_synced_timestamp_seconds") > time.time() - 120
    assert running.terminate() == 0
    again = begin()
    assert version_of(again) == 2
    server.start()
    server.bucket(bucket.name)
    put(bucket, published, tmp_path, 3, ("three", "g", "b"))
    wait_for(lambda: version_of(again) == 3, again.log)
    assert SECRET not in running.log() + again.log()


def test_a_rollout_and_a_rollback_by_the_source(begin: Begin, bucket: Bucket, published: Path, tmp_path: Path) -> None:
    """Under load one file in the bucket says which of two versions answers, of one model of two, and none is lost."""

    def stable(version: int) -> None:
        labels = {"stable": version, "canary": 2}
        bucket.put("colours/serving.json", json.dumps({"versions": [1, 2], "labels": labels}).encode())

    put(bucket, published, tmp_path, 1, ("one", "g", "b"))
    put(bucket, published, tmp_path, 2, ("two", "g", "b"))
    bucket.put_version(copy(published, tmp_path / "made", 1, name="other"), "other", 1)
    stable(1)
    running = begin(MODEL_NAME="colours")

    def told(path: str) -> str:
        answer = requests.post(running.url + path, files={"image": plain("red")}, timeout=30)
        return str(answer.json()["predictions"][0]["label"]) if answer.status_code == 200 else answer.text

    wait_for(lambda: told("/predict?version=canary") == "two", running.log)
    assert told("/predict") == "one"  # at any time: the canary came last
    wait_for(lambda: told("/predict?model=other") == "red", running.log)
    with asking(running, clients=2) as answers:
        stable(2)
        wait_for(lambda: told("/predict") == "two", running.log)
        stable(1)
        wait_for(lambda: told("/predict") == "one", running.log)
    assert answers.failures == []


def test_readiness_says_why_there_is_no_model(
    begin: Begin, bucket: Bucket, server: S3Server, published: Path, tmp_path: Path
) -> None:
    """With nothing in the cache and a source that does not answer, the service starts, says so, and waits for it."""
    server.stop()
    running = begin(ready=False)
    wait_for(lambda: running.status("/health/ready") == 503, running.log)
    wait_for(lambda: "s3://running cannot be had: no connection" in running.get("/health/ready").text, running.log)
    assert running.status("/health/live") == 200
    assert running.predict(plain("red")).status_code == 503
    server.start()
    server.bucket(bucket.name)
    put(bucket, published, tmp_path, 1, ("one", "g", "b"))
    running.wait_until_ready()


def test_another_worker_takes_over(begin: Begin, bucket: Bucket, published: Path, tmp_path: Path) -> None:
    """One of the workers syncs; where it dies, another does, and all answer with what is fetched."""
    put(bucket, published, tmp_path, 1, ("one", "g", "b"))
    running = begin(WORKERS="2")
    syncing = syncing_in(tmp_path / "models")
    assert syncing in workers(running)
    os.kill(syncing, signal.SIGKILL)
    put(bucket, published, tmp_path, 2, ("two", "g", "b"))
    wait_for(lambda: version_of(running) == 2, running.log)
    assert syncing_in(tmp_path / "models") in set(workers(running)) - {syncing}


def syncing_in(models: Path) -> int:
    """Return the process that syncs into ``models``, as the kernel's list of locks tells; 0 where none does."""
    inode = (models / ".source" / "lock").stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
            return int(words[4])
    return 0


@pytest.mark.parametrize("deaf", [True, False], ids=["silent", "slow"])
def test_the_service_stops_in_the_middle_of_a_download(
    begin: Begin, bucket: Bucket, server: S3Server, published: Path, tmp_path: Path, deaf: bool
) -> None:
    """SIGTERM waits neither for a server that says nothing nor for one that is slow, and nothing is half there."""
    put(bucket, published, tmp_path, 1, ("one", "g", "b"))
    with proxy(server.port) as between:
        between.pause, between.deaf = 0.3, deaf
        running = begin(ready=False, AWS_ENDPOINT_URL=between.url)
        wait_for(lambda: between.connections > 0 and running.status("/health/live") == 200, running.log)
        begun = time.monotonic()
        assert running.terminate() == 0
        assert time.monotonic() - begun < 5
        between.deaf = False
    assert "Traceback" not in running.log()
    assert "SIGABRT" not in running.log()
    assert versions(tmp_path / "models", "colours") == []


def test_answers_do_not_wait_for_a_download(begin: Begin, bucket: Bucket, published: Path, tmp_path: Path) -> None:
    """While a large version is fetched and checked, half of the requests are as fast as before, and all are soon."""
    put(bucket, published, tmp_path, 1, ("one", "g", "b"))
    running = begin()
    before = sorted(seconds_of(running) for _ in range(40))
    large = copy(published, tmp_path / "made", 2, labels=("two", "g", "b"))
    from tests.models import add_files

    add_files(large, {f"assets.extra/large-{part}.bin": os.urandom(40_000_000) for part in range(4)})
    bucket.put_version(large, "colours", 2)
    during = []
    while version_of(running) == 1:
        during.append(seconds_of(running))
    during.sort()
    assert len(during) > 5
    assert during[len(during) // 2] < 10 * before[len(before) // 2] + 0.05
    assert during[-1] < 2


def seconds_of(running: RunningService) -> float:
    """Return how long the service takes for one picture."""
    begun = time.monotonic()
    assert running.predict(plain("red")).status_code == 200
    return time.monotonic() - begun


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"MODEL_SOURCE": "ftp://bucket/models"}, "MODEL_SOURCE is set, but it must be s3://"),
        ({"MODEL_SOURCE": "s3://me:hidden@bucket"}, "MODEL_SOURCE is set, but it has a user or a password"),
        ({"MODEL_SOURCE": "https://host/models.zip"}, "over HTTP it must be an archive"),
        ({"MODEL_SOURCE": "hf://somebody"}, "hf://OWNER/REPO"),
        ({"MODEL_SOURCE": "s3://bucket", "MODEL_DIR": "/proc/models"}, "nothing can be written in MODEL_DIR"),
        ({"MODEL_SOURCE": "s3://bucket", "MODEL_SOURCE_POLL_SECONDS": "0"}, "MODEL_SOURCE_POLL_SECONDS is '0'"),
    ],
)
def test_settings_that_cannot_be_used(environment: dict[str, str], told: str, tmp_path: Path) -> None:
    """Each is one sentence at the start, without the secret in it."""
    done = run_to_the_end(**{"MODEL_DIR": str(tmp_path / "models"), **environment})
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "hidden" not in done.stderr


def test_a_missing_package(tmp_path: Path) -> None:
    """Without the extra, the sentence names it."""
    hidden = tmp_path / "without"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'obstore' else find(name, package)\n"
    )
    done = run_to_the_end(MODEL_DIR=str(tmp_path), MODEL_SOURCE="s3://bucket", PYTHONPATH=str(hidden))
    assert "obstore is not installed: pip install 'darkroom[service,sources]'" in done.stderr
    assert done.returncode == 2
