"""The documents as a website: it is whole, and needs no network."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.end_to_end.browser import overflow, visit

pytestmark = [pytest.mark.process, pytest.mark.slow]

MKDOCS = Path(sys.executable).parent / "mkdocs"


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the website of the repository in ``folder``, as ``make site`` does."""
    return subprocess.run(
        [MKDOCS, "build", "--strict", "--site-dir", site],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the website."""
    folder = tmp_path_factory.mktemp("site")
    done = build(root, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    """The address of a server of the website."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "scheme", "width"), [("/", "light", 1200), ("/design/", "dark", 1200), ("/settings/", "light", 390)]
)
def test_pages_ask_nobody_else_for_anything(browser: Browser, url: str, path: str, scheme: str, width: int) -> None:
    """In a browser a page takes everything from its own server, without an error, and fits a phone."""
    with visit(browser, url, path, color_scheme=scheme, viewport={"width": width, "height": 800}) as page:
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.wait_for_load_state("networkidle")
        assert overflow(page) == 0


def test_every_page_is_in_the_navigation(root: Path, site: Path) -> None:
    """Each document of docs/ is a page that one finds from the first one, and so are the longer results."""
    first = (site / "index.html").read_text(encoding="utf-8")
    pages = {page.stem for page in (root / "docs").glob("*.md")} - {"index"} | {"accuracy", "speed", "changelog"}
    assert [page for page in sorted(pages) if f'href="{page}/"' not in first] == []


def test_a_link_to_nowhere_ends_the_build(root: Path, tmp_path: Path) -> None:
    """Links to pages, to headings and to files of the code are all checked."""
    for place, link in {
        "page": "[x](nowhere.md)",
        "heading": "[x](serve.md#nowhere)",
        "code": "[x](../service/nowhere.py)",
    }.items():
        copy = tmp_path / place
        copy.mkdir()
        for name in ("docs", "training", "benchmarks", "imaging", "docker", "service", "tests", "artifact"):
            (copy / name).symlink_to(root / name)
        for name in ("mkdocs.yml", "CHANGELOG.md", "README.md", "SECURITY.md", "CONTRIBUTING.md", ".env.example"):
            (copy / name).symlink_to(root / name)
        (copy / "docs").unlink()
        (copy / "mkdocs.yml").unlink()
        shutil.copy(root / "mkdocs.yml", copy)
        shutil.copytree(root / "docs", copy / "docs")
        with (copy / "docs" / "index.md").open("a", encoding="utf-8") as file:
            file.write(f"\n{link}\n")
        done = build(copy, copy / "site")
        assert done.returncode != 0, place
        assert "nowhere" in done.stderr
