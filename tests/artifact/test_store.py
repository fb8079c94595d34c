"""Versions in a real S3 server: fetched whole, published whole, and every fault is a sentence without a secret."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artifact import draft, read_metadata, validate, versions
from artifact.errors import DAMAGED, DENIED, MISSING, UNREACHABLE, SourceFails, Stopped
from artifact.fetching import StoredVersion, fetch_newest
from artifact.store import Store, check_address
from tests.models import metadata
from tests.object_store import SECRET, Bucket, proxy, s3_server

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    """The bucket of a running server; each test has a prefix of its own in it."""
    with s3_server() as running:
        yield running.start()


@pytest.fixture
def bucket(server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The bucket, with what it needs in the environment."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def store(bucket: Bucket, request: pytest.FixtureRequest) -> Store:
    """A store of the test's own."""
    return Store(f"{bucket.address}/{request.node.name[:40].strip('_').replace('[', '-').replace(']', '')}")


def publish(store: Store, models: Path, source: Path) -> Path:
    """Publish the version in folder ``source`` as the next one of the colours in ``store``."""
    with draft(models, "colours", store) as version:
        for file in (path for path in source.rglob("*") if path.is_file() and path.name != "metadata.json"):
            (version.path / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (version.path / file.relative_to(source)).write_bytes(file.read_bytes())
        return version.publish(metadata("colours"))


def test_a_version_is_published_and_fetched(store: Store, published: Path, tmp_path: Path) -> None:
    """What one machine publishes, another fetches, whole and with its number; a copy stays with the first."""
    path = publish(store, tmp_path / "one", published)
    assert path == tmp_path / "one" / "colours" / "1"
    assert fetch_newest(store, tmp_path / "other", "colours") == 1
    assert validate(tmp_path / "other" / "colours" / "1") == validate(path)
    assert read_metadata(path).version == 1


def test_two_trainers_at_once_get_two_numbers(store: Store, published: Path, tmp_path: Path) -> None:
    """Each number is taken by a conditional put, so that nobody writes into another's version."""
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda each: publish(store, tmp_path / str(each), published), range(4)))
    assert sorted(int(path.name) for path in paths) == [1, 2, 3, 4]
    assert store.versions("colours") == [1, 2, 3, 4]
    assert all(StoredVersion(store, "colours", number).whole for number in (1, 2, 3, 4))


def test_a_killed_upload_is_passed_over(store: Store, published: Path, tmp_path: Path) -> None:
    """What a trainer leaves that was killed is no version, and the next one takes the number behind it."""
    publish(store, tmp_path / "models", published)
    with proxy(int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])) as slow:
        slow.pause = 0.3
        environment = {**os.environ, "AWS_ENDPOINT_URL": slow.url}
        code = (
            "import sys; from pathlib import Path; from artifact.store import Store\n"
            "store = Store(sys.argv[1]); number = store.claim('colours'); print(number, flush=True)\n"
            "store.upload(Path(sys.argv[2]), 'colours', number)"
        )
        command = [sys.executable, "-c", code, store.address, str(published)]
        killed = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"2\n"
        time.sleep(0.5)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        killed.stdout.close()
    assert not StoredVersion(store, "colours", 2).whole
    assert fetch_newest(store, tmp_path / "other", "colours") == 1
    assert publish(store, tmp_path / "models", published).name == "3"
    assert fetch_newest(store, tmp_path / "other", "colours") == 3


def test_what_cannot_be_uploaded_leaves_nothing(
    store: Store, published: Path, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails in the middle is a sentence; neither the store nor the folder has a version then."""
    with proxy(int(bucket.url.rpartition(":")[2])) as broken:
        monkeypatch.setattr("artifact.store.RETRIES", 0)
        monkeypatch.setenv("AWS_ENDPOINT_URL", broken.url)
        failing = Store(store.address)

        def upload(version: Path, name: str, number: int) -> None:
            broken.cut_after = 0
            Store.upload(failing, version, name, number)

        monkeypatch.setattr(failing, "upload", upload)
        with pytest.raises(SourceFails, match="cannot be had") as raised:
            publish(failing, tmp_path / "models", published)
    assert raised.value.reason == UNREACHABLE
    assert versions(tmp_path / "models", "colours") == []
    assert not StoredVersion(store, "colours", 1).whole


def test_what_is_gone_from_the_store_goes_from_the_copy(
    store: Store, published: Path, tmp_path: Path, bucket: Bucket
) -> None:
    """The newest version is that of the store, also for a trainer that published a newer one once."""
    for _ in range(2):
        publish(store, tmp_path / "models", published)
    prefix = store.address.removeprefix(f"{bucket.address}/")
    bucket.delete(f"{prefix}/colours/2/assets.extra/metadata.json")
    assert fetch_newest(store, tmp_path / "models", "colours") == 1
    assert versions(tmp_path / "models", "colours") == [1]


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("ftp://bucket/models", "none of s3://, gs://, az://"),
        ("s3://user:password@bucket/models", "credentials come from the environment"),
        ("s3://", "no bucket"),
        ("s3://bucket/models?X-Amz-Signature=1", "a prefix at most"),
        ("s3://bucket/../models", "a prefix at most"),
    ],
)
def test_addresses_that_are_none(address: str, fault: str) -> None:
    """A wrong address is a sentence that says what is wrong, without the password in it."""
    with pytest.raises(ValueError, match=fault) as raised:
        check_address(address)
    assert "password@" not in str(raised.value)


def test_a_bucket_that_is_not_there(bucket: Bucket) -> None:
    """The sentence names what is missing."""
    with pytest.raises(SourceFails, match="s3://no-such-bucket/models/colours is not there") as raised:
        Store("s3://no-such-bucket/models").versions("colours")
    assert raised.value.reason == MISSING


def test_nobody_who_answers(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is not there is a sentence within seconds, without the credentials."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceFails, match="cannot be had: no connection") as raised:
        Store("s3://models-of-tests").listing()
    assert raised.value.reason == UNREACHABLE
    assert SECRET not in str(raised.value)


def test_a_wait_ends_when_it_should(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never answers holds nobody up who wants to stop."""
    with proxy(int(bucket.url.rpartition(":")[2])) as silent:
        silent.deaf = True
        monkeypatch.setenv("AWS_ENDPOINT_URL", silent.url)
        begun = time.monotonic()
        with pytest.raises(Stopped):
            Store("s3://models-of-tests", lambda: time.monotonic() - begun > 0.3).listing()
        assert time.monotonic() - begun < 3
        silent.deaf = False


@pytest.mark.parametrize(
    ("address", "variable"),
    [("gs://bucket/models", "GOOGLE_SERVICE_ACCOUNT"), ("az://container/models", "AZURE_STORAGE_ACCOUNT")],
)
def test_google_and_azure_ask_for_credentials(address: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their addresses reach their own stores, which say which credentials they miss."""
    monkeypatch.setattr("artifact.store.RETRIES", 0)
    with pytest.raises(SourceFails, match=variable) as raised:
        Store(address).listing()
    assert raised.value.reason == DENIED


def test_azure_with_an_account_asks_its_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account is enough to ask; the endpoint of the environment is asked, and the key is in no message."""
    monkeypatch.setattr("artifact.store.RETRIES", 0)
    key = "c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA=="
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "darkroom")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", key)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "https://127.0.0.1:9")
    with pytest.raises(SourceFails, match=r"az://container/models cannot be had: no connection") as raised:
        Store("az://container/models").listing()
    assert raised.value.reason == UNREACHABLE
    assert key not in str(raised.value)


def test_a_process_may_end_right_after_a_call(bucket: Bucket) -> None:
    """No thread of the library comes back into a Python that is being taken down, which would abort the process."""
    code = (
        "from artifact.store import Store; store = Store('s3://models-of-tests/ends'); store.require_writable()\n"
        "store.listing(); store.files('x')"
    )
    ends = [subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode for _ in range(12)]
    assert ends == [0] * 12


def test_a_file_that_changes_while_it_is_fetched(store: Store, bucket: Bucket, tmp_path: Path) -> None:
    """A file with another size than was listed is not taken."""
    prefix = store.address.removeprefix(f"{bucket.address}/")
    bucket.put(f"{prefix}/colours/1/file", b"longer than before")
    with pytest.raises(SourceFails, match="was changed meanwhile") as raised:
        store.fetch("colours/1/file", tmp_path / "file", 3)
    assert raised.value.reason == DAMAGED
