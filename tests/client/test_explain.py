"""``python -m client explain``: a heat map for each picture, where it was asked for, or an end where there is none."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.client.command import Darkroom
from tests.client.conftest import StartScripted
from tests.client.scripted import Answer, error
from tests.service.pictures import encoded, plain
from tests.service.running import free_port


def half(colour: str) -> bytes:
    """Return a PNG whose left half has this colour; the rest is black."""
    image = Image.new("RGB", (64, 64))
    image.paste(colour, (0, 0, 32, 64))
    return encoded(image)


def is_warm_on_the_left(content: bytes) -> bool:
    """Say whether a heat map is yellow on the left and violet on the right."""
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    left, right = (pixels[128, column] for column in (64, 192))
    return bool(left[0] > left[2] and right[2] > right[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two good pictures and a bad one."""
    (tmp_path / "pictures" / "more").mkdir(parents=True)
    for name, content in (("a.png", half("red")), ("b.png", b"bad"), ("more/c.png", half("blue"))):
        (tmp_path / "pictures" / name).write_bytes(content)
    return tmp_path / "pictures"


def test_heat_maps_lie_beside_the_pictures(darkroom: Darkroom, service_url: str, folder: Path) -> None:
    """Each is named on stdout, the bad picture at the end; asked again, heat maps are not taken for pictures."""
    for _ in range(2):
        done = darkroom.run("explain", "pictures", "--url", service_url)
        assert done.returncode == 1
        assert done.stdout.decode() == "pictures/a.png.why.png\npictures/more/c.png.why.png\n"
        assert done.stderr.decode().startswith("1 of 3 failed:\n  pictures/b.png: ")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    assert files == ["a.png", "a.png.why.png", "b.png", "more/c.png", "more/c.png.why.png"]
    assert is_warm_on_the_left((folder / "a.png.why.png").read_bytes())


def test_heat_maps_go_into_a_folder_of_their_own(darkroom: Darkroom, service_url: str, folder: Path) -> None:
    """Under the same paths, wherever the pictures are, and never outside of it."""
    (folder.parent / "x").mkdir()
    done = darkroom.run("explain", folder / "a.png", "x/../pictures/more", "--out", "maps", "--url", service_url)
    assert done.returncode == 0, done.stderr
    found = sorted((folder.parent / "maps").rglob("*.png"))
    inside = [folder.parent / "maps" / folder.relative_to("/") / "a.png.why.png"]
    assert found == sorted([*inside, folder.parent / "maps" / "x" / "pictures" / "more" / "c.png.why.png"])
    assert sorted(path.name for path in folder.rglob("*.why.png")) == []


def test_a_label_and_a_pipe(darkroom: Darkroom, service_url: str) -> None:
    """The map of a picture on stdin comes on stdout; of a label that nothing speaks for it is violet all over."""
    red = darkroom.run("explain", "-", "--url", service_url, stdin=half("red"))
    assert (red.returncode, red.stderr) == (0, b"")
    assert is_warm_on_the_left(red.stdout)
    green = darkroom.run("explain", "-", "--label", "green", "--url", service_url, stdin=half("red"))
    assert not is_warm_on_the_left(green.stdout)


def test_what_stands_in_the_way_of_all_ends_it(
    darkroom: Darkroom, service_url: str, folder: Path, start_scripted: StartScripted
) -> None:
    """A label that is unknown, a model that cannot be explained and a service that is not there are told once."""
    silent = start_scripted(lambda _: error(501, "not_explainable", "It cannot be explained."))
    for url, label, told in (
        (service_url, "purple", "has no label 'purple'"),
        (silent.url, "red", "It cannot be explained."),
        (f"http://127.0.0.1:{free_port()}", "red", "Does the service run?"),
    ):
        done = darkroom.run("explain", "pictures", "--label", label, "--url", url)
        assert done.returncode == 2
        assert told in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1
    assert not list(folder.rglob("*.why.png"))


def test_a_service_that_stops_later_costs_only_what_is_left(
    darkroom: Darkroom, folder: Path, start_scripted: StartScripted
) -> None:
    """What was drawn stays, and what was not is listed."""
    picture = plain("red")
    server = start_scripted(
        lambda call: Answer(200, picture) if call.number == 0 else error(500, "engine_failed", "It failed.")
    )
    done = darkroom.run("explain", "pictures", "--url", server.url)
    assert done.returncode == 1
    assert (folder / "a.png.why.png").read_bytes() == picture
    assert b"2 of 3 failed" in done.stderr
