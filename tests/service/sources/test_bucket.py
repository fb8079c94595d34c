"""A folder of models that follows a real S3 server, also through faults in the middle of a download."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from artifact import validate, versions
from artifact.errors import DAMAGED, DENIED, MISSING, NO_SPACE, UNREACHABLE, SourceFails
from artifact.fetching import fetch_version
from artifact.layout import METADATA
from tests.models import copy
from tests.object_store import Bucket, S3Server, proxy
from tests.service.sources.conftest import MakeSync

pytestmark = pytest.mark.process


def put(bucket: Bucket, source: Path, tmp_path: Path, number: int, name: str = "colours") -> Path:
    """Put a version into ``bucket`` and return a folder that has the same."""
    made = copy(source, tmp_path / "made", number, name=name)
    bucket.put_version(made, name, number)
    return made


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below ``folder``, by their paths."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_newest_version_is_fetched(bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path) -> None:
    """Of each model the newest version comes, file for file, and none of the history."""
    for number in (1, 2):
        put(bucket, published, tmp_path, number)
    made = put(bucket, published, tmp_path, 7, name="other")
    sync_of(bucket.address).run()
    models = tmp_path / "models"
    assert (versions(models, "colours"), versions(models, "other")) == ([2], [7])
    assert files(models / "other" / "7") == files(made)
    assert validate(models / "colours" / "2").version == 2


def test_a_prefix_and_names_limit_what_is_fetched(
    bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """A bucket may hold other things, and a service may want one of its models."""
    for name in ("deep/er/one", "deep/er/two"):
        bucket.put_version(published, name, 1)
    sync_of(f"{bucket.address}/deep/er", names=("two",)).run()
    assert [path.name for path in (tmp_path / "models").iterdir() if path.name[0] != "."] == ["two"]


def test_nothing_is_fetched_twice(
    bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at what has not changed costs lists alone, also after a restart."""
    put(bucket, published, tmp_path, 1)
    sync_of(bucket.address).run()
    before = (tmp_path / "models" / "colours" / "1").stat().st_ino
    monkeypatch.setattr("artifact.store.Store.fetch", lambda *_: pytest.fail("it was fetched again"))
    monkeypatch.setattr("artifact.store.Store.read", lambda *_: pytest.fail("it was read again"))
    again = sync_of(bucket.address)
    for _ in range(2):
        again.run()
    assert (tmp_path / "models" / "colours" / "1").stat().st_ino == before


def test_half_a_version_is_none(bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path) -> None:
    """What has no metadata yet is being uploaded, and the version before is taken."""
    put(bucket, published, tmp_path, 1)
    bucket.put("colours/2/saved_model.pb", b"half")
    bucket.put("colours/3/.claim", b"")
    bucket.put("colours/note.txt", b"no version")
    sync_of(bucket.address).run()
    assert versions(tmp_path / "models", "colours") == [1]
    bucket.put_version(published, "colours", 2)
    sync_of(bucket.address).run()
    assert versions(tmp_path / "models", "colours") == [1, 2]


def test_old_versions_go(bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path) -> None:
    """The version before the newest stays to go back to, and what is served does; what others put there does too."""
    models = tmp_path / "models"
    copy(published, models, 1, name="colours")  # which no sync has fetched
    served = {("colours", 2)}
    sync = sync_of(bucket.address, served=lambda: served)
    for number in (2, 3, 4, 5):
        put(bucket, published, tmp_path, number)
        sync.run()
    assert versions(models, "colours") == [1, 2, 4, 5]
    served.clear()
    sync.run()
    assert versions(models, "colours") == [1, 4, 5]


def test_a_version_that_is_named_keeps_no_others(
    bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """An old stable version stays for years; what came and went since then does not."""
    bucket.put("colours/serving.json", b'{"versions": {"latest": 1}, "labels": {"stable": 1}}')
    sync = sync_of(bucket.address)
    for number in (1, 2, 3, 4, 5):
        put(bucket, published, tmp_path, number)
        sync.run()
    assert versions(tmp_path / "models", "colours") == [1, 4, 5]


def test_many_models_are_named(
    bucket: Bucket, sync_of: MakeSync, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket of more models than anybody serves is not listed one by one, unless those that are served are named."""
    monkeypatch.setattr("service.sources.bucket._MOST_MODELS", 2)
    for name in ("one", "two", "three"):
        bucket.put_version(published, name, 1)
    with pytest.raises(SourceFails, match="more than 2 models: name those that are served by MODEL_NAMES"):
        sync_of(bucket.address).run()
    sync_of(bucket.address, names=("three",)).run()


def test_what_is_gone_from_the_source_stays(bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path) -> None:
    """A version that is removed at the source may be what answers; it goes when newer ones have taken its place."""
    made = put(bucket, published, tmp_path, 2)
    put(bucket, published, tmp_path, 1)
    sync = sync_of(bucket.address)
    sync.run()
    for path in files(made):
        bucket.delete(f"colours/2/{path}")
    sync.run()
    assert versions(tmp_path / "models", "colours") == [1, 2]


def test_serving_json_is_taken_over_with_the_versions_that_it_names(
    bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """It comes after the versions that it needs; only a change at the source takes the place of the file here."""
    for number in range(1, 8):
        put(bucket, published, tmp_path, number)
    plan = {"versions": {"latest": 2}, "labels": {"stable": 2}, "traffic": {"stable": 9, "4": 1}, "shadow": "3"}
    bucket.put("colours/serving.json", json.dumps(plan).encode())
    sync = sync_of(bucket.address)
    sync.run()
    models = tmp_path / "models"
    here = models / "colours" / "serving.json"
    assert versions(models, "colours") == [2, 3, 4, 6, 7]
    assert json.loads(here.read_text()) == plan
    here.write_text('{"labels": {"stable": 7}}')  # as the API does
    sync.run()
    assert json.loads(here.read_text()) == {"labels": {"stable": 7}}
    bucket.put("colours/serving.json", b'{"versions": [5]}')
    sync.run()
    assert json.loads(here.read_text()) == {"versions": [5]}
    assert 5 in versions(models, "colours")
    bucket.delete("colours/serving.json")
    sync.run()
    assert not here.exists()


def test_who_answers_is_known_before_others_could(
    bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A canary never answers for want of a plan, and no label leads to a version that is not there yet."""
    seen: list[tuple[int, int | None]] = []
    here = tmp_path / "models" / "colours" / "serving.json"

    def fetching(offered: object, models: Path, name: str, number: int, *, replace: bool) -> int | None:
        seen.append((number, json.loads(here.read_text())["labels"]["canary"] if here.exists() else None))
        return fetch_version(offered, models, name, number, replace=replace)  # type: ignore[arg-type]

    monkeypatch.setattr("service.sources.sync.fetch_version", fetching)
    for number in (1, 2):
        put(bucket, published, tmp_path, number)
    bucket.put("colours/serving.json", b'{"labels": {"stable": 1, "canary": 2}}')
    sync = sync_of(bucket.address)
    sync.run()
    assert seen == [(1, None), (2, 2)]
    seen.clear()
    for number in (3, 4):
        put(bucket, published, tmp_path, number)
    bucket.put("colours/serving.json", b'{"labels": {"stable": 1, "canary": 3}}')
    sync.run()
    assert seen == [(3, 2), (4, 3)]


def test_a_serving_json_that_cannot_be_read(bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path) -> None:
    """A typing mistake at the source changes nothing here, and is told."""
    put(bucket, published, tmp_path, 1)
    bucket.put("colours/serving.json", b'{"versions": {"latest": 1}}')
    sync = sync_of(bucket.address)
    sync.run()
    bucket.put("colours/serving.json", b'{"versions": ')
    with pytest.raises(SourceFails, match=r"serving.json of colours in s3://.* is not good: "):
        sync.run()
    assert (tmp_path / "models" / "colours" / "serving.json").read_bytes() == b'{"versions": {"latest": 1}}'


class Fault(NamedTuple):
    """What a proxy does to a download, for how long, and what is told of it."""

    fields: dict[str, object]
    told: str
    reason: str


@pytest.mark.parametrize(
    "fault",
    [
        Fault({"cut_after": 3000}, "cannot be had", UNREACHABLE),
        Fault({"cut_after": 0}, "cannot be had", UNREACHABLE),
        Fault({"replace": (b"HTTP/1.1 200", b"HTTP/1.1 500")}, "the server answers 500", UNREACHABLE),
        Fault({"replace": (b"HTTP/1.1 200", b"HTTP/1.1 403")}, "access to .* is denied", DENIED),
        Fault({"replace": (b"serving_default", b"serving_defaulT")}, "differs from its sha256", DAMAGED),
    ],
    ids=["cut", "cut at once", "500", "403", "wrong"],
)
def test_faults_in_the_middle(
    bucket: Bucket,
    s3: S3Server,
    sync_of: MakeSync,
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    """Whatever comes between, no version is there before it is whole; it comes once the fault has gone."""
    monkeypatch.setattr("artifact.store.RETRIES", 0)
    monkeypatch.setattr("service.sources.sync._FIRST_HOLD", 0.0)
    made = put(bucket, published, tmp_path, 1)
    models = tmp_path / "models"
    with proxy(s3.port) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        sync = sync_of(bucket.address)
        for name, value in fault.fields.items():
            setattr(between, name, value)
        with pytest.raises(SourceFails, match=fault.told) as raised:
            sync.run()
        assert raised.value.reason == fault.reason
        assert versions(models, "colours") == []
        between.times = 0
        sync.run()
    assert files(models / "colours" / "1") == files(made)


def test_a_connection_that_is_cut_a_few_times_is_no_failure(
    bucket: Bucket, s3: S3Server, sync_of: MakeSync, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request is tried again by itself, with a growing pause."""
    put(bucket, published, tmp_path, 1)
    with proxy(s3.port) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        between.cut_after, between.times = 0, 2
        sync_of(bucket.address).run()
    assert versions(tmp_path / "models", "colours") == [1]
    assert between.times == 0


def test_what_was_fetched_is_not_fetched_again(
    bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure in the middle, also of the process, only the files that are not right yet are fetched."""
    from artifact.store import Store

    put(bucket, published, tmp_path, 1)
    fetch = Store.fetch
    fetched: list[str] = []

    def failing(store: Store, path: str, target: Path, size: int) -> None:
        if len(fetched) == 2:
            raise SourceFails(UNREACHABLE, "it is cut here")
        fetched.append(path)
        fetch(store, path, target, size)

    monkeypatch.setattr(Store, "fetch", failing)
    with pytest.raises(SourceFails, match="it is cut here"):
        sync_of(bucket.address).run()
    first = list(fetched)
    fetched[:] = ["", "", ""]
    sync_of(bucket.address).run()
    again = fetched[3:]
    assert len(first) == 2
    assert again
    assert not set(first) & set(again)


def test_what_is_wrong_at_the_source_is_not_fetched_at_every_look(
    bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken version is told at every look and fetched seldom; the one before is taken, and so is its repair."""
    from artifact.store import Store

    put(bucket, published, tmp_path, 1)
    put(bucket, published, tmp_path, 2)
    good = bucket.get("colours/2/saved_model.pb")
    bucket.put("colours/2/saved_model.pb", good[:-1] + b"\0")
    sync = sync_of(bucket.address)
    with pytest.raises(SourceFails, match=r"colours/2/saved_model.pb differs from its sha256") as raised:
        sync.run()
    assert raised.value.reason == DAMAGED
    assert versions(tmp_path / "models", "colours") == [1]
    fetch = Store.fetch
    monkeypatch.setattr(Store, "fetch", lambda *_: pytest.fail("it was fetched again"))
    with pytest.raises(SourceFails, match="differs from its sha256"):
        sync.run()
    monkeypatch.setattr(Store, "fetch", fetch)
    bucket.put("colours/2/saved_model.pb", good)
    sync.run()
    assert versions(tmp_path / "models", "colours") == [1, 2]


def test_a_version_that_changes_at_the_source_is_taken_anew(
    bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """Somebody who removes a version and publishes another one under its number is followed."""
    put(bucket, published, tmp_path, 1)
    sync = sync_of(bucket.address)
    sync.run()
    changed = copy(published, tmp_path / "changed", 1, labels=("r", "g", "b"))
    bucket.put_version(changed, "colours", 1)
    sync.run()
    assert validate(tmp_path / "models" / "colours" / "1").labels == ("r", "g", "b")


def test_a_version_of_somebody_else_is_left_alone(
    bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """A version that lies in the folder already, as one that was trained there, is not overwritten."""
    copy(published, tmp_path / "models", 1, labels=("r", "g", "b"))
    put(bucket, published, tmp_path, 1)
    with pytest.raises(SourceFails, match="is another version than s3://"):
        sync_of(bucket.address).run()
    assert validate(tmp_path / "models" / "colours" / "1").labels == ("r", "g", "b")


def test_a_disk_without_room(
    bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that is larger than the free space is a sentence with both figures, and no part of it stays."""
    put(bucket, published, tmp_path, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(SourceFails, match=r"does not fit: .* MB are to be fetched, and .* has 0\.0 MB free") as raised:
        sync_of(bucket.address).run()
    assert raised.value.reason == NO_SPACE
    assert list((tmp_path / "models" / "colours").iterdir()) == []


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "variables/../../x"])  # noqa: S108 - a name in metadata
def test_metadata_cannot_lead_outside(
    bucket: Bucket, sync_of: MakeSync, published: Path, tmp_path: Path, name: str
) -> None:
    """A forged name of a file writes nothing anywhere."""
    made = put(bucket, published, tmp_path, 1)
    record = json.loads((made / METADATA).read_text())
    record["files"][name] = "0" * 64
    bucket.put(f"colours/1/{METADATA}", json.dumps(record).encode())
    with pytest.raises(SourceFails, match="lies outside the version") as raised:
        sync_of(bucket.address).run()
    assert raised.value.reason == DAMAGED


def test_an_empty_source(bucket: Bucket, sync_of: MakeSync) -> None:
    """A bucket without a model says how they have to lie there."""
    with pytest.raises(SourceFails, match="has no models: a version's files lie in NAME/VERSION/") as raised:
        sync_of(f"{bucket.address}/nothing").run()
    assert raised.value.reason == MISSING
