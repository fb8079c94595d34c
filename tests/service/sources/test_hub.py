"""A folder of models that follows a repository of the hub: a local server answers as the hub's API does.

It answers ``/api/models/OWNER/REPO/revision/REVISION?blobs=true`` and ``/OWNER/REPO/resolve/COMMIT/PATH``, which leads
to another server for large files, as the hub's leads to its storage.
"""

import json
from pathlib import Path

import pytest

from artifact import validate, versions
from artifact.errors import DAMAGED, DENIED, MISSING, UNREACHABLE, SourceFails
from service.sources.hub import parse
from tests.models import copy
from tests.service.sources.conftest import MakeSync, WebServer, web_server

REPOSITORY = "somebody/colours"


def commit(web: WebServer, folder: Path, sha: str, revision: str = "main", storage: WebServer | None = None) -> None:
    """Have the repository hold the files of ``folder``, at a commit that ``revision`` is then."""
    listed = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, content = file.relative_to(folder).as_posix(), file.read_bytes()
        listed.append({"rfilename": name, "size": len(content), "blobId": "0" * 40})
        path = f"/{REPOSITORY}/resolve/{sha}/{name}"
        if storage is not None and len(content) > 1000:
            web.redirects[path] = f"{storage.url}/blob/{name}"
            storage.files[f"/blob/{name}"] = content
        else:
            web.files[path] = content
    told = {"id": REPOSITORY, "sha": sha, "siblings": listed}
    web.files[f"/api/models/{REPOSITORY}/revision/{revision}"] = json.dumps(told).encode()


@pytest.fixture
def hub(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    """The server that stands for the hub, in the environment."""
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return web


def test_a_repository_is_followed(hub: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path) -> None:
    """Its newest version comes; a commit that has not changed costs one question, and a new one what is new."""
    made = tmp_path / "made"
    copy(published, made, 1)
    commit(hub, made, "a" * 40)
    sync = sync_of(f"hf://{REPOSITORY}")
    sync.run()
    assert validate(tmp_path / "models" / "colours" / "1") == validate(made / "colours" / "1")
    hub.asked.clear()
    sync.run()
    assert len(hub.asked) == 1
    copy(published, made, 2)
    commit(hub, made, "b" * 40)
    sync.run()
    assert versions(tmp_path / "models", "colours") == [1, 2]


def test_revisions_and_folders(hub: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path) -> None:
    """A tag may be named, and a folder in the repository, which here is a version itself."""
    made = tmp_path / "made"
    copy(published, made, 4)
    commit(hub, made, "c" * 40, revision="v1.0")
    sync_of(f"hf://{REPOSITORY}@v1.0/colours/4").run()
    assert versions(tmp_path / "models", "colours") == [4]


def test_a_token_goes_to_the_hub_and_not_to_its_storage(
    hub: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private repository needs HF_TOKEN, which the server that large files lie on never sees."""
    copy(published, tmp_path / "made", 1)
    hub.password = "Bearer hf_hidden"  # noqa: S105 - made up
    with web_server() as storage:
        commit(hub, tmp_path / "made", "d" * 40, storage=storage)
        with pytest.raises(SourceFails, match="is denied") as raised:
            sync_of(f"hf://{REPOSITORY}").run()
        assert raised.value.reason == DENIED
        monkeypatch.setenv("HF_TOKEN", "hf_hidden")
        sync_of(f"hf://{REPOSITORY}").run()
        assert storage.asked
        assert not any("Authorization" in headers for _, headers in storage.asked)
    assert versions(tmp_path / "models", "colours") == [1]


def test_a_download_that_is_cut(hub: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path) -> None:
    """Files that are there are not fetched again."""
    copy(published, tmp_path / "made", 1)
    commit(hub, tmp_path / "made", "e" * 40)
    hub.cut_after, hub.times = 4000, 1
    with pytest.raises(SourceFails) as raised:
        sync_of(f"hf://{REPOSITORY}").run()
    assert raised.value.reason == UNREACHABLE
    assert versions(tmp_path / "models", "colours") == []
    sync_of(f"hf://{REPOSITORY}").run()
    assert versions(tmp_path / "models", "colours") == [1]


def test_a_file_that_is_not_what_it_should_be(
    hub: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """The sha256 in the metadata decides."""
    copy(published, tmp_path / "made", 1)
    commit(hub, tmp_path / "made", "f" * 40)
    hub.files[f"/{REPOSITORY}/resolve/{'f' * 40}/colours/1/fingerprint.pb"] += b"more"
    with pytest.raises(SourceFails, match=r"fingerprint.pb differs from its sha256") as raised:
        sync_of(f"hf://{REPOSITORY}").run()
    assert raised.value.reason == DAMAGED


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"sha": "1"}', b'{"sha": "1", "siblings": [{"rfilename": 1}]}'])
def test_a_server_that_is_no_hub(hub: WebServer, sync_of: MakeSync, answer: bytes) -> None:
    """An answer of another kind is a sentence."""
    hub.files[f"/api/models/{REPOSITORY}/revision/main"] = answer
    with pytest.raises(SourceFails, match=r"(does not answer as the hub does|answers with something other than JSON)"):
        sync_of(f"hf://{REPOSITORY}").run()


def test_a_repository_that_is_not_there(hub: WebServer, sync_of: MakeSync) -> None:
    """Nor is one that nobody may see."""
    with pytest.raises(SourceFails, match="is not there") as raised:
        sync_of("hf://nobody/nothing").run()
    assert raised.value.reason == MISSING


@pytest.mark.parametrize(
    "address", ["hf://somebody", "hf://", "hf://a/b/../c", "hf://user:word@a/b/c@d@e", "hf://a b/c"]
)
def test_addresses_that_are_none(address: str) -> None:
    """What names no repository is refused."""
    with pytest.raises(ValueError, match="hf://OWNER/REPO"):
        parse(address)
