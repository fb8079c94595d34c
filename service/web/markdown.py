"""Markdown as model cards have it, to HTML: headings, tables, lists, paragraphs, pictures, bold text and code.

All else stands there as it was written, HTML too: a card comes with a model, and says nothing that the page would do.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from markupsafe import Markup, escape

_HEADING = re.compile(r"(#{1,5}) +(.*)")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]*)\)")
_RULE = re.compile(r"[\s|:-]+")
_SECTION = 2  # the level of the headings that divide a card
_NO_WORD = re.compile(r"\W+")
_INLINE = re.compile(r"\*\*(?P<bold>[^*]+)\*\*|`(?P<code>[^`]+)`")


def to_html(text: str, pictures: Mapping[str, str]) -> Markup:
    """Return ``text`` as HTML whose headings begin at the second level.

    ``pictures`` are the addresses of those that may be shown, by the names that the text has for them; others are left
    out.
    """
    blocks = (list(lines) for kind, lines in groupby(text.splitlines(), _kind) if kind is not _nothing)
    return Markup("\n").join(_kind(block[0])(block, pictures) for block in blocks)


class Part(NamedTuple):
    """A part of a card that the page can lead to: the id of its element, and its title."""

    id: str
    title: str


def parts(text: str, pictures: Collection[str]) -> list[Part]:
    """Return the sections of ``text``, below its title, and its ``pictures``, in their order."""
    found = []
    for line in text.splitlines():
        if (match := _HEADING.fullmatch(line)) and len(match[1]) == _SECTION:
            found.append(Part(_id(match[2]), match[2]))
        elif (match := _PICTURE.fullmatch(line.strip())) and match[2] in pictures:
            found.append(Part(_id(match[1]), match[1].partition(":")[0]))
    return found


Block = Callable[[Sequence[str], Mapping[str, str]], Markup]


def _kind(line: str) -> Block:
    """Return what makes HTML of a line and of those like it that follow."""
    if not line.strip():
        return _nothing
    if _HEADING.fullmatch(line):
        return _headings
    if line.startswith("|"):
        return _table
    if line.startswith(("- ", "* ")):
        return _list
    return _pictures if _PICTURE.fullmatch(line.strip()) else _paragraph


def _nothing(_lines: Sequence[str], _known: Mapping[str, str]) -> Markup:
    return Markup()


def _headings(lines: Sequence[str], _known: Mapping[str, str]) -> Markup:
    found = [match for match in map(_HEADING.fullmatch, lines) if match]
    return Markup("\n").join(
        Markup('<h{0} id="{1}">{2}</h{0}>').format(1 + len(match[1]), _id(match[2]), _inline(match[2]))
        for match in found
    )


def _paragraph(lines: Sequence[str], _known: Mapping[str, str]) -> Markup:
    return Markup("<p>{}</p>").format(_inline(" ".join(lines)))


def _list(lines: Sequence[str], _known: Mapping[str, str]) -> Markup:
    items = Markup().join(Markup("<li>{}</li>").format(_inline(line[2:])) for line in lines)
    return Markup("<ul>{}</ul>").format(items)


def _pictures(lines: Sequence[str], known: Mapping[str, str]) -> Markup:
    found = (_PICTURE.fullmatch(line.strip()) for line in lines)
    return Markup("\n").join(
        Markup('<figure id="{}"><img src="{}" alt="{}"><figcaption>{}</figcaption></figure>').format(
            _id(match[1]), known[match[2]], match[1], match[1]
        )
        for match in found
        if match and match[2] in known
    )


def _table(lines: Sequence[str], _known: Mapping[str, str]) -> Markup:
    """Return a table: the cells before its rule are its head, unless they are empty, and each row's first its name."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    head: list[str] = []
    if len(rows) > 1 and _RULE.fullmatch(lines[1]):
        head, rows = rows[0], rows[2:]
    cells = Markup('<th scope="col">{}</th>')
    titles = Markup().join(cells.format(_inline(cell)) for cell in head) if any(head) else Markup()
    body = Markup("\n").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            _inline(first), Markup().join(Markup("<td>{}</td>").format(_inline(cell)) for cell in others)
        )
        for first, *others in rows
    )
    above = Markup("<thead><tr>{}</tr></thead>").format(titles) if titles else Markup()
    table = Markup("<table>{}<tbody>{}</tbody></table>").format(above, body)
    return Markup('<div class="scrolled" role="group" aria-label="Table" tabindex="0">{}</div>').format(table)


def _inline(text: str) -> Markup:
    """Return a line of text with its bold words and its code."""
    parts, at = [], 0
    for match in _INLINE.finditer(text):
        tag = "strong" if match["bold"] else "code"
        parts += [
            escape(text[at : match.start()]),
            Markup("<{0}>{1}</{0}>").format(tag, match["bold"] or match["code"]),
        ]
        at = match.end()
    return Markup().join([*parts, escape(text[at:])])


def _id(title: str) -> str:
    """Return the id of the element with this title; those of the report are others."""
    return f"card-{_NO_WORD.sub('-', title.lower()).strip('-')}"
