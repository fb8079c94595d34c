"""Trainings that publish into a real S3 server: what one machine publishes is what the next is held against."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifact import read_metadata, validate
from artifact.fetching import StoredVersion, fetch_newest
from artifact.store import Store
from tests.object_store import SECRET, Bucket, s3_server
from training.publish.stores import open_store

ROOT = Path(__file__).parents[2]
SHORT = ("--preset", "smoke", "--epochs", "1")


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """A bucket of a running server."""
    with s3_server() as server:
        yield server.start()


def train(bucket: Bucket, runs: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the trainer with a folder for its runs, as a machine of its own would."""
    return subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        cwd=ROOT,
        env={**os.environ, **bucket.environment, "RUN_DIR": str(runs), "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.process
@pytest.mark.slow
def test_trainings_publish_into_a_store(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second machine compares its version with the first one's, and gets the next number."""
    models = f"{bucket.address}/models"
    first = train(bucket, tmp_path / "one", *SHORT, "--models", models)
    assert first.returncode == 0, first.stderr
    assert f"{models}/smoke/1" in first.stdout
    assert f"MODEL_SOURCE={models} MODEL_NAME=smoke" in first.stdout
    second = train(bucket, tmp_path / "two", *SHORT, "--models", models)
    assert second.returncode == 0, second.stderr
    assert "The newest version in s3://models-of-tests/models is smoke version 1." in second.stdout
    assert "than the version before" in second.stdout
    assert SECRET not in first.stdout + first.stderr + second.stdout + second.stderr
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    store = Store(models)
    assert store.versions("smoke") == [1, 2]
    assert fetch_newest(store, tmp_path / "fetched", "smoke") == 2
    metadata = validate(tmp_path / "fetched" / "smoke" / "2")
    assert metadata == read_metadata(tmp_path / "two" / "stores" / "s3" / "models-of-tests" / "models" / "smoke" / "2")
    assert metadata.version == 2
    assert all(StoredVersion(store, "smoke", number).whole for number in (1, 2))


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(
    ("models", "code", "told"),
    [
        ("s3://no-such-bucket/models", 1, "training: error: s3://no-such-bucket/models"),
        ("s3://me:hidden@bucket", 2, "credentials come from the environment"),
        ("https://host/models", 2, "none of s3://, gs://, az://"),
    ],
)
def test_a_store_that_cannot_be_used(bucket: Bucket, tmp_path: Path, models: str, code: int, told: str) -> None:
    """It is a sentence before the training, and not after it."""
    done = train(bucket, tmp_path, *SHORT, "--models", models)
    assert done.returncode == code
    assert told in done.stderr
    assert "hidden" not in done.stderr.replace("me:hidden@bucket", "") or code == 1
    assert "Epoch" not in done.stdout


def test_a_damaged_version_is_no_reason_not_to_publish(
    bucket: Bucket, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest version of the store cannot be compared with then, which is said, and the next number is free."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    bucket.put_version(published, "broken/colours", 1)
    bucket.put("broken/colours/1/saved_model.pb", b"changed")
    store = open_store(f"{bucket.address}/broken", tmp_path, "colours")
    assert store is not None
    assert "Without the newest version in the store: " in capsys.readouterr().out
    assert store.claim("colours") == 2
