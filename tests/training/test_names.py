"""Whatever a file or folder is called, its name is printed on one line, and as nothing that a terminal acts on."""

import pytest

from training.names import printable


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("grüne Äpfel 🌸", "grüne Äpfel 🌸"),
        ("new\nline\ttab", r"new\nline\ttab"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\u202egpj.exe", r"\u202egpj.exe"),  # which turns around what follows
        (b"\xff.jpg".decode(errors="surrogateescape"), r"\udcff.jpg"),
    ],
)
def test_what_a_terminal_would_act_on_is_spelled_out(name: str, printed: str) -> None:
    """Letters of any script stay as they are."""
    assert printable(name) == printed
