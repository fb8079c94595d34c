"""What the service takes of the machine: connections by memory and open files, and a place for what workers share."""

import resource
from pathlib import Path

import pytest

from service.serving import server
from service.serving.server import CannotServe, most_connections

MEBIBYTE = 2**20


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 8300, reason="there are fewer open files")
@pytest.mark.parametrize(
    ("memory", "connections"), [(64 * MEBIBYTE, 256), (1024 * MEBIBYTE, 4096), (10**12, 8192), (MEBIBYTE, 16), (0, 16)]
)
def test_connections_follow_from_memory(memory: int, connections: int) -> None:
    """A quarter of a worker's memory is for them at 64 KiB each; there are neither none nor more than 8,192."""
    assert most_connections(memory) == connections


def test_the_first_place_with_space_is_taken(tmp_path: Path) -> None:
    """A place that cannot be written, or that is too small, is passed over, and nothing is left there."""
    places = [tmp_path / "nowhere", tmp_path]
    with server._scratch_folder(1000, places) as scratch:
        assert scratch.has_space
        assert scratch.folder.parent == tmp_path
        assert list(scratch.folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_without_space_there_is_a_place_all_the_same(tmp_path: Path) -> None:
    """Signs of life need a file without content; that there is no space for more is told."""
    (tmp_path / "other").mkdir()
    with server._scratch_folder(2**62, [tmp_path, tmp_path / "other"]) as scratch:
        assert not scratch.has_space
        assert scratch.folder.parent == tmp_path
        assert list((tmp_path / "other").iterdir()) == []
    assert [each.name for each in tmp_path.iterdir()] == ["other"]


def test_nowhere_to_write_is_told(tmp_path: Path) -> None:
    """Where nothing can be written, the message names the places, and what to do."""
    with pytest.raises(CannotServe, match=r"none of .*/nowhere lets me: mount a tmpfs .*TMPDIR"):
        server._scratch_folder(1000, [tmp_path / "nowhere"]).__enter__()
