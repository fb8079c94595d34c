"""Pictures that people have labelled are told by the names of their files."""

import pytest

from artifact.reviewed import is_reviewed, reviewed_name


def test_a_name_tells_that_a_picture_was_reviewed() -> None:
    """It is of the content alone, so that the same picture has one name wherever it goes."""
    name = reviewed_name("0123456789abcdef" * 4, ".jpg")
    assert name == "reviewed-0123456789abcdef0123456789abcdef.jpg"
    assert is_reviewed(name)
    assert is_reviewed(f"cat/{name}")


@pytest.mark.parametrize("name", ["1.jpg", "reviewed.jpg", "reviewed-by-anna/1.jpg", "not-reviewed-1.jpg"])
def test_other_names_do_not(name: str) -> None:
    """Nor does a folder that begins so."""
    assert not is_reviewed(name)
