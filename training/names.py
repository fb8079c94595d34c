"""Names of files and labels in what is printed: they are strangers', and a terminal would act on some of them."""


def printable(text: str) -> str:
    """Return ``text`` on one line, with what a terminal would act on, or has no glyph for, as its escape sequence."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
