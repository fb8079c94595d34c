"""What was found as a page of HTML, in one file: thumbnails are in it, and it needs neither a network nor a script."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path

from PIL import Image

from artifact import Input
from machine import usable_cores
from training.check.findings import LOOK_AT, Kind, Report, Suggestion
from training.check.output import formats_in_words, leak_in_words, pictures_in_words
from training.data.decoding import UnreadablePicture, inspect, read_content
from training.progress import bar
from training.report.thumbnails import data_address

_MOST = 48  # pictures of a kind; the CSV has all
_BESIDE = 2  # pictures that one is shown beside
_SIDE = 160  # pixels of a thumbnail's longer side
_QUALITY = 70

_STYLE = """\
:root { color-scheme: light dark; --ground: #fff; --text: #1b1b1b; --quiet: #555; --line: #ccc; --link: #0b57d0; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #161616; --text: #ececec; --quiet: #b0b0b0; --line: #444; --link: #8ab4f8; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--ground); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .25rem; border-top: 1px solid var(--line);
  padding-top: 1rem; }
a { color: var(--link); }
.quiet { color: var(--quiet); }
ul.pictures { list-style: none; margin: .75rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 1rem; }
ul.pictures > li { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem; width: min-content;
  break-inside: avoid; }
.row { display: flex; gap: .5rem; }
figure { margin: 0; width: min(10rem, 27vw); }
figure div { height: min(10rem, 27vw); display: flex; align-items: center; justify-content: center; }
figure img { max-width: 100%; max-height: 100%; height: auto; }
figcaption { font-size: .8rem; }
li > p { margin: .4rem 0 0; font-size: .85rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .15rem 1rem .15rem 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
"""


def write_page(report: Report, file: Path) -> None:
    """Write the page; pictures are read again for their thumbnails.

    Raises:
        OSError: the file cannot be written.
    """
    file.write_text("".join(_page(report)), encoding="utf-8", errors="replace")


def _page(report: Report) -> Iterator[str]:
    name = report.folder.resolve().name
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{_text(name)}: pictures checked</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{_text(name)}</h1>\n"
        f"<p>{_text(pictures_in_words(report))}. {_text(formats_in_words(report))}</p>\n"
    )
    kinds = [kind for kind in Kind if report.of(kind)]
    if report.nothing:
        yield "<p>Nothing is wrong with them.</p>\n"
    if kinds:
        yield '<nav aria-label="Findings">\n<ul>\n'
        yield from (
            f'<li><a href="#{_anchor(kind)}">{_text(kind.heading)}</a>: {len(report.of(kind)):,}</li>\n'
            for kind in kinds
        )
        yield "</ul>\n</nav>\n"
    yield from _of_classes(report)
    thumbnails = _thumbnails(report, kinds)
    for kind in kinds:
        yield from _section(kind, report.of(kind), thumbnails)
    yield "</main>\n</body>\n</html>\n"


def _of_classes(report: Report) -> Iterator[str]:
    yield f'<h2 id="classes">{"Labels" if report.multi_label else "Classes"}</h2>\n'
    notes = [leak_in_words(report)] if report.leak else []
    yield from (f"<p>{_text(note)}</p>\n" for note in (*notes, *report.notes))
    yield (
        "<details>\n<summary>How many pictures of each</summary>\n<table>\n"
        '<thead><tr><th scope="col">label</th><th scope="col" class="number">pictures</th></tr></thead>\n<tbody>\n'
    )
    for label, number in sorted(report.classes.items(), key=lambda pair: -pair[1]):
        yield f'<tr><th scope="row">{_text(label)}</th><td class="number">{number:,}</td></tr>\n'
    yield "</tbody>\n</table>\n</details>\n"


def _section(kind: Kind, found: list[Suggestion], thumbnails: dict[str, str]) -> Iterator[str]:
    anchor = _anchor(kind)
    yield f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{_text(kind.heading)}: {len(found):,}</h2>\n'
    if len(found) > _MOST:
        yield f'<p class="quiet">The {_MOST} most certain ones; <code>--csv</code> lists all.</p>\n'
    yield '<ul class="pictures">\n'
    for suggestion in found[:_MOST]:
        shown = (suggestion.path, *suggestion.beside[:_BESIDE])
        yield '<li>\n<div class="row">\n'
        yield from (_figure(path, thumbnails.get(path)) for path in shown)
        what = "" if suggestion.suggestion == LOOK_AT else f"<strong>{_text(suggestion.suggestion)}</strong>; "
        yield f"</div>\n<p>{what}{_text(suggestion.why)}</p>\n"
        yield f'<p class="quiet">certainty {suggestion.certainty:.2f}</p>\n</li>\n'
    yield "</ul>\n</section>\n"


def _figure(path: str, thumbnail: str | None) -> str:
    image = (
        f'<img src="{thumbnail}" alt="{_text(path)}">' if thumbnail else '<span class="quiet">cannot be shown</span>'
    )
    return f"<figure><div>{image}</div><figcaption>{_text(path)}</figcaption></figure>\n"


def _thumbnails(report: Report, kinds: list[Kind]) -> dict[str, str]:
    """Return the pictures that are shown as data URLs, by their paths."""
    shown = [suggestion for kind in kinds for suggestion in report.of(kind)[:_MOST]]
    paths = list(dict.fromkeys(path for each in shown for path in (each.path, *each.beside[:_BESIDE])))
    made = {}
    with ThreadPoolExecutor(usable_cores()) as pool, bar(len(paths), "Thumbnails", "picture") as progress:
        for path, url in zip(paths, pool.map(lambda path: _thumbnail(report.folder / path), paths), strict=True):
            progress.update(1)
            if url:
                made[path] = url
    return made


def _thumbnail(file: Path) -> str | None:
    try:
        seen = inspect(read_content(file), Input(_SIDE, _SIDE, "stretch"))
    except UnreadablePicture:
        return None
    scale = _SIDE / max(seen.width, seen.height)
    size = max(1, round(scale * seen.width)), max(1, round(scale * seen.height))
    return data_address(Image.fromarray(seen.views[0]).resize(size, Image.Resampling.BICUBIC), "JPEG", quality=_QUALITY)


def _anchor(kind: Kind) -> str:
    return kind.word.replace(" ", "-")


def _text(text: str) -> str:
    return escape(text.encode(errors="replace").decode())
