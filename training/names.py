"""Names in what is printed: those of files and labels, which are strangers', and that of the command."""

import shlex
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def command() -> str:
    """Return what starts Darkroom from here: ``darkroom``, or the file in a clone, which has it on no path."""
    if not (_ROOT / "Makefile").is_file():
        return "darkroom"
    return "./darkroom" if Path.cwd() == _ROOT else shlex.quote(str(_ROOT / "darkroom"))


def printable(text: str) -> str:
    """Return ``text`` on one line, with what a terminal would act on, or has no glyph for, as its escape sequence."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
