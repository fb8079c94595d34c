"""What makes a website of the documents: pages from elsewhere in the repository, and links to its files.

MkDocs calls these functions by their names. Links are written for whoever reads the files; here those that leave
``docs/`` become links to the page that the site has of the file, or to the file in the repository.
"""

import logging
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = {"training/RESULTS.md": "accuracy.md", "benchmarks/NOTES.md": "speed.md", "CHANGELOG.md": "changelog.md"}
"""Documents that lie beside what they tell of, and the pages that the site has of them."""

_LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")
_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)

log = logging.getLogger(f"mkdocs.{__name__}")  # whose warnings end a strict build


def on_files(files: Files, config: Any) -> Files:
    """Add the documents from elsewhere, and the pictures beside them."""
    for name, page in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
        for picture in [*(ROOT / name).parent.glob("*.svg"), *(ROOT / name).parent.glob("*.png")]:
            files.append(File.generated(config, picture.name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Return ``markdown`` with the links that lead out of the site's folder turned; code stays as it is."""
    source = next((name for name, own in ELSEWHERE.items() if own == page.file.src_uri), f"docs/{page.file.src_uri}")
    folder = PurePosixPath(source).parent
    repository = config["extra"]["repository"].rstrip("/")
    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(lambda found: _turned(found[1], folder, repository, source), part) for part in parts[::2]]
    return "".join(parts)


def _turned(link: str, folder: PurePosixPath, repository: str, source: str) -> str:
    """Return where ``link`` of a document in ``folder`` leads on the site."""
    if link.startswith(("http:", "https:", "mailto:")):
        return link
    name = os.path.normpath(folder / link)
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    file = ROOT / name
    if not file.exists():
        log.warning("%s links to %s, which does not exist", source, link)
    if file.suffix in (".svg", ".png") and folder == PurePosixPath(name).parent:
        return file.name
    return f"{repository}/{'tree' if file.is_dir() else 'blob'}/main/{name}"
