"""A folder of models that follows an archive on a real HTTP server, also through faults in the middle of a download."""

import io
import json
import shutil
import tarfile
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path

import pytest

from artifact import validate, versions
from artifact.errors import DAMAGED, DENIED, MISSING, NO_SPACE, UNREACHABLE, SourceFails, Stopped
from artifact.layout import METADATA
from service.sources.http import _Redirects
from tests.models import copy
from tests.service.sources.conftest import MakeSync, WebServer


def packed(*parts: tuple[Path, str], mode: str = "w") -> bytes:
    """Return an archive of folders, each under its name."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:  # type: ignore[call-overload]  # by its text
        for folder, name in parts:
            archive.add(folder, name)
    return target.getvalue()


def with_member(member: tarfile.TarInfo, content: bytes = b"") -> Callable[[Path], bytes]:
    """Return what packs a version and one more member behind it."""

    def pack(version: Path) -> bytes:
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w") as archive:
            archive.add(version, "colours/1")
            archive.addfile(member, io.BytesIO(content))
        return target.getvalue()

    return pack


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    """Return the head of a member of an archive."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


@pytest.mark.parametrize(
    ("inside", "mode"),
    [("colours/3", "w"), ("./colours/3", "w:gz"), ("3", "w"), ("", "w:gz"), (".", "w")],
    ids=["NAME/VERSION", "NAME/VERSION.gz", "VERSION", "version.gz", "version"],
)
def test_an_archive_in_each_form(
    web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path, inside: str, mode: str
) -> None:
    """It holds NAME/VERSION/, VERSION/ or a version itself, whose metadata say then what it is."""
    made = copy(published, tmp_path / "made", 3)
    path = f"/models.tar{'.gz' if mode.endswith('gz') else ''}"
    web.files[path] = packed((made, inside), mode=mode)
    sync_of(web.url + path).run()
    models = tmp_path / "models"
    assert versions(models, "colours") == [3]
    assert validate(models / "colours" / "3") == validate(made)
    assert [entry.name for entry in (models / ".source").iterdir()] == ["journal.json"]


def test_an_archive_of_several_models_with_a_policy(
    web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """Of each model come the newest version and those that its serving.json names."""
    made = tmp_path / "made"
    for number in (1, 2, 3):
        copy(published, made, number)
    copy(published, made, 9, name="other")
    (made / "colours" / "serving.json").write_text('{"labels": {"stable": 1}}')
    web.files["/all.tar.gz"] = packed((made, ""), mode="w:gz")
    sync_of(f"{web.url}/all.tar.gz").run()
    models = tmp_path / "models"
    assert (versions(models, "colours"), versions(models, "other")) == ([1, 3], [9])
    assert json.loads((models / "colours" / "serving.json").read_text()) == {"labels": {"stable": 1}}


def test_an_archive_that_has_not_changed_is_not_sent(
    web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """The server is asked by ETag, also after a restart; what has changed comes."""
    web.files["/one.tar"] = packed((copy(published, tmp_path / "made", 1), "colours/1"))
    sync_of(f"{web.url}/one.tar").run()
    for sync in [sync_of(f"{web.url}/one.tar")] * 2:
        sync.run()
    assert [headers.get("If-None-Match") for _, headers in web.asked] == [None, *[web.etag("/one.tar")] * 2]
    web.files["/one.tar"] = packed((copy(published, tmp_path / "made", 2), "colours/2"))
    sync.run()
    assert versions(tmp_path / "models", "colours") == [1, 2]


def test_a_version_that_was_lost_here_comes_again(
    web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """The cache may be emptied by hand."""
    web.files["/one.tar"] = packed((copy(published, tmp_path / "made", 1), "colours/1"))
    sync = sync_of(f"{web.url}/one.tar")
    sync.run()
    (tmp_path / "models" / "colours" / "1").rename(tmp_path / "away")
    sync.run()
    assert versions(tmp_path / "models", "colours") == [1]


def test_a_download_that_is_cut_goes_on_where_it_was(
    web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """What is there of an archive is not fetched again, as long as the server still has the same."""
    content = web.files["/one.tar"] = packed((copy(published, tmp_path / "made", 1), "colours/1"))
    web.cut_after, web.times = 5000, 2
    for _ in range(2):
        with pytest.raises(SourceFails, match=r"/one.tar (was cut after|cannot be had: the connection)") as raised:
            sync_of(f"{web.url}/one.tar").run()
        assert raised.value.reason == UNREACHABLE
    sync_of(f"{web.url}/one.tar").run()
    assert versions(tmp_path / "models", "colours") == [1]
    assert [headers.get("Range") for _, headers in web.asked] == [None, "bytes=5000-", "bytes=10000-"]
    assert len(content) > 15_000


def test_an_archive_that_changes_between_two_attempts(
    web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """Halves of two archives are never put together: the second is fetched from its beginning."""
    web.files["/one.tar"] = packed((copy(published, tmp_path / "made", 1), "colours/1"))
    web.cut_after, web.times = 5000, 1
    with pytest.raises(SourceFails, match=r"/one.tar"):
        sync_of(f"{web.url}/one.tar").run()
    web.files["/one.tar"] = packed((copy(published, tmp_path / "made", 2), "colours/2"))
    sync_of(f"{web.url}/one.tar").run()
    assert versions(tmp_path / "models", "colours") == [2]


@pytest.mark.parametrize(
    ("status", "told", "reason"),
    [
        (500, "the server answers 500", UNREACHABLE),
        (503, "the server answers 503", UNREACHABLE),
        (403, "is denied", DENIED),
        (401, "is denied", DENIED),
        (404, "is not there", MISSING),
    ],
)
def test_a_server_that_refuses(web: WebServer, sync_of: MakeSync, status: int, told: str, reason: str) -> None:
    """Each status is a sentence with the address, and one of few reasons."""
    web.status = status
    with pytest.raises(SourceFails, match=rf"{web.url}/one.tar.* {told}") as raised:
        sync_of(f"{web.url}/one.tar").run()
    assert raised.value.reason == reason


def test_secrets_are_in_no_message(web: WebServer, sync_of: MakeSync, tmp_path: Path) -> None:
    """Neither user and password nor a signature in the query are told or noted."""
    web.status = 403
    address = web.url.replace("http://", "http://somebody:hidden-word@") + "/one.tar?signature=hidden-too"
    with pytest.raises(SourceFails) as raised:
        sync_of(address).run()
    assert "hidden" not in str(raised.value)
    assert "somebody" not in str(raised.value)
    assert "hidden" not in (tmp_path / "models" / ".source" / "journal.json").read_text()
    assert web.asked[0][0] == "/one.tar?signature=hidden-too"


def test_a_password_is_sent_to_its_own_server_alone(
    web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """A redirect within the server keeps it, as one elsewhere does not."""
    web.password = "Basic bWU6d29yZA=="  # noqa: S105 - me:word
    web.files["/real.tar"] = packed((copy(published, tmp_path / "made", 1), "colours/1"))
    web.redirects["/one.tar"] = "/real.tar"
    address = web.url.replace("http://", "http://me:word@")
    sync_of(f"{address}/one.tar").run()
    assert versions(tmp_path / "models", "colours") == [1]
    web.redirects["/two.tar"] = web.url.replace("127.0.0.1", "localhost") + "/real.tar"
    with pytest.raises(SourceFails, match="is denied"):
        sync_of(f"{address}/two.tar").run()
    web.redirects["/three.tar"] = "file:///etc/passwd"
    with pytest.raises(SourceFails):
        sync_of(f"{address}/three.tar").run()


def test_a_redirect_never_leaves_https() -> None:
    """What was asked for in confidence is not fetched in the open, where it could be changed on its way."""
    request = urllib.request.Request("https://host/one.tar?signature=hidden")
    with pytest.raises(
        SourceFails, match=r"^https://host/one.tar redirects from https to an address that is not$"
    ) as raised:
        _Redirects().redirect_request(request, io.BytesIO(), 302, "Found", Message(), "http://host/one.tar")
    assert raised.value.reason == DENIED


@pytest.mark.parametrize(
    ("pack", "told"),
    [
        (with_member(member("colours/1/../../../outside", size=3), b"out"), "would lie outside"),
        (with_member(member("/tmp/outside", size=3), b"out"), "would lie outside"),  # noqa: S108 - in an archive
        (with_member(member("colours/1/link", tarfile.SYMTYPE, "/etc/passwd")), "is a link or a device"),
        (with_member(member("colours/1/hard", tarfile.LNKTYPE, "colours/1/saved_model.pb")), "is a link or a device"),
        (with_member(member("colours/1/pipe", tarfile.FIFOTYPE)), "is a link or a device"),
        (
            lambda version: packed((version, "colours/1"))[:20_000],
            "no archive that can be used|differs from its sha256",
        ),
        (lambda _: b"not an archive" * 100, "no archive that can be used"),
        (lambda _: b"\x1f\x8b but no gzip" * 100, "no archive that can be used"),
        (lambda version: packed((version, "colours/1"), mode="w:gz")[:-2000], "no archive that can be used"),
        (lambda version: packed((version / "variables", "colours/1")), "has no version: its files lie in"),
        (lambda _: b"", "no archive that can be used|has no version"),
    ],
    ids=["above", "absolute", "link", "hard link", "pipe", "short", "text", "no gzip", "short gzip", "none", "empty"],
)
def test_archives_that_cannot_be_used(
    web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path, pack: Callable[[Path], bytes], told: str
) -> None:
    """Nothing of them is unpacked anywhere, they are told in a sentence, and not fetched again at every look."""
    web.files["/one.tar"] = pack(copy(published, tmp_path / "made", 1))
    sync = sync_of(f"{web.url}/one.tar")
    for _ in range(3):
        with pytest.raises(SourceFails, match=told) as raised:
            sync.run()
        assert raised.value.reason in (DAMAGED, MISSING)
    assert [headers.get("If-None-Match") for _, headers in web.asked] == [None, *[web.etag("/one.tar")] * 2]
    assert not list((tmp_path / "models").glob("colours/[0-9]*"))
    assert [entry.name for entry in (tmp_path / "models" / ".source").iterdir()] == ["journal.json"]
    web.files["/one.tar"] = packed((copy(published, tmp_path / "made", 2), "colours/2"))
    sync.run()
    assert versions(tmp_path / "models", "colours") == [2]


def test_a_header_that_asks_for_much_memory(web: WebServer, sync_of: MakeSync) -> None:
    """An archive whose headers pretend to be huge is refused before they are read."""
    forged = tarfile.TarInfo("pax")
    forged.type, forged.size = tarfile.XHDTYPE, 2**30
    web.files["/one.tar"] = forged.tobuf() + b"\0" * 1024
    with pytest.raises(SourceFails, match="one of its headers is too large"):
        sync_of(f"{web.url}/one.tar").run()


def test_an_archive_that_would_be_endless(web: WebServer, sync_of: MakeSync) -> None:
    """More than a version can have is refused by its headers, before anything is unpacked."""
    web.files["/one.tar"] = member("colours/1/zeros", size=2**36).tobuf(tarfile.GNU_FORMAT) + b"\0" * 2048
    with pytest.raises(SourceFails, match="it has more than") as raised:
        sync_of(f"{web.url}/one.tar").run()
    assert raised.value.reason == DAMAGED


def test_an_archive_that_is_larger_than_the_disk(
    web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a sentence with both figures, and what was fetched of it does not stay."""
    web.files["/one.tar"] = packed((copy(published, tmp_path / "made", 1), "colours/1"))
    web.cut_after, web.times = 5000, 1
    with pytest.raises(SourceFails, match=r"/one\.tar"):
        sync_of(f"{web.url}/one.tar").run()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(SourceFails, match=r"does not fit: it has .* MB, of which 0\.0 are free") as raised:
        sync_of(f"{web.url}/one.tar").run()
    assert raised.value.reason == NO_SPACE
    assert not list((tmp_path / "models" / ".source").glob("archive*.part"))


def test_notes_that_are_broken_are_forgotten(
    web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """What a sync has noted may be lost: everything is looked at again."""
    web.files["/one.tar"] = packed((copy(published, tmp_path / "made", 1), "colours/1"))
    sync_of(f"{web.url}/one.tar").run()
    notes = tmp_path / "models" / ".source" / "journal.json"
    for content in ("", "[]", '{"source": 1}', notes.read_text().replace('"1"', '"one"')):
        notes.write_text(content)
        sync_of(f"{web.url}/one.tar").run()
    assert versions(tmp_path / "models", "colours") == [1]


def test_a_server_that_goes_and_comes_back(web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path) -> None:
    """What was fetched stays while the server is gone."""
    web.files["/one.tar"] = packed((copy(published, tmp_path / "made", 1), "colours/1"))
    sync = sync_of(f"{web.url}/one.tar")
    sync.run()
    web.cut_after = 0
    web.etags["/one.tar"] = '"other"'
    with pytest.raises(SourceFails):
        sync.run()
    assert versions(tmp_path / "models", "colours") == [1]
    web.cut_after = None
    sync.run()


def test_a_slow_download_ends_when_it_should(
    web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path
) -> None:
    """Somebody who stops the service does not wait for an archive."""
    web.files["/one.tar"] = packed((copy(published, tmp_path / "made", 1), "colours/1"))
    with pytest.raises(Stopped):
        sync_of(f"{web.url}/one.tar", stop=lambda: True).run()
    assert not (tmp_path / "models" / "colours").exists()


def test_metadata_without_a_name(web: WebServer, sync_of: MakeSync, published: Path, tmp_path: Path) -> None:
    """A version alone has to say whose it is."""
    made = copy(published, tmp_path / "made", 1)
    (made / METADATA).write_text('{"name": "../outside", "version": 1}')
    web.files["/one.tar"] = packed((made, ""))
    with pytest.raises(SourceFails, match="does not tell the version's name and number"):
        sync_of(f"{web.url}/one.tar").run()
