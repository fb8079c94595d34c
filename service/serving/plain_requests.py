"""Requests that every parser reads in the same way: they may be answered, or refused, without one.

The head has nothing but names, colons and printable values, one plain length, and none of the headers that change where
a request ends. What is written in any other way is left to gunicorn's parser.
"""

import re
from dataclasses import dataclass

_HEAD = re.compile(rb"POST (/[!-~]*) HTTP/1\.1(?:\r\n[!#-'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*)+")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([^\r]*)", re.IGNORECASE)
_UNUSUAL = re.compile(
    rb"\r\n(?:transfer-encoding:|expect:|upgrade:|connection:(?![ \t]*keep-alive[ \t]*(?:\r|\Z)))", re.IGNORECASE
)
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,8}")
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """The beginning of a POST: its head, without the empty line, what has come of its body, and how long that is."""

    head: bytes
    target: bytes  # of the first line: the path and the query
    body: bytes
    length: int

    @property
    def whole(self) -> bool:
        """Whether all of it is there, and nothing else."""
        return len(self.body) == self.length


def read(data: bytes) -> PlainRequest | None:
    """Return the request that ``data`` begins with; None where it is another, or its head is not all there."""
    head, found, body = data.partition(_END)
    start = _HEAD.fullmatch(head) if found else None
    if start is None or _UNUSUAL.search(head):
        return None
    lengths = _LENGTH.findall(head)
    if len(lengths) != 1 or _NUMBER.fullmatch(lengths[0]) is None:
        return None
    return PlainRequest(head, start[1], body, int(lengths[0]))
