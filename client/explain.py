"""Heat maps of many pictures as files: each beside its picture, or in a folder of their own."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from client.api import Client, Found
from client.output import drafted
from client.paths import unreadable
from client.results import RequestFailed, Result

SUFFIX = ".why.png"

# What is wrong with one picture, and says nothing about the others.
_OF_A_PICTURE = (
    "invalid_image", "unsupported_image", "image_too_large", "body_too_large", "engine_failed", "deadline_exceeded"
)  # fmt: skip


def explained(client: Client, found: Iterable[Found], label: str | None, folder: Path | None) -> Iterator[Result]:
    """Write the heat map of each picture; yield its file's name, or what went wrong, as a result.

    They go beside the pictures, or below ``folder`` under the same paths; that of standard input goes to standard
    output. Heat maps that were found among the pictures are passed over.

    Raises:
        RequestFailed: the service cannot be reached, stays busy, knows no such label, or cannot explain its model; once
            it has explained a picture, that is in the result of each.
        OSError: a heat map cannot be written.
    """
    answered = False
    for item in found:
        if item.file.endswith(SUFFIX):
            continue
        if isinstance(item, Result):
            yield item
            continue
        try:
            content = item.read()
        except (OSError, ValueError) as error:
            yield unreadable(item.file, error)
            continue
        try:
            heat_map = client.explain(content, label)
        except RequestFailed as error:
            if not answered and error.name not in _OF_A_PICTURE:
                raise
            yield Result(item.file, error=error.name, message=str(error))
            continue
        answered = True
        if item.from_stdin:
            sys.stdout.buffer.write(heat_map)
            sys.stdout.buffer.flush()
        else:
            yield Result(_write(item.file, heat_map, folder))


def _write(file: str, heat_map: bytes, folder: Path | None) -> str:
    """Write the heat map of the picture in ``file``; return the name of its own."""
    path = Path(f"{file}{SUFFIX}")
    if folder is not None:
        path = folder.joinpath(*(part for part in path.parts if part not in (path.anchor, "..")))
        path.parent.mkdir(parents=True, exist_ok=True)
    with drafted(path) as draft:
        draft.write_bytes(heat_map)
    return str(path)
