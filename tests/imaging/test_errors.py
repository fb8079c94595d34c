"""What Pillow raises is told apart; what is not about the picture goes through."""

import struct

import pytest
from PIL import Image, UnidentifiedImageError

from imaging import DamagedPicture, FarTooManyPixels, UndecodablePicture, UnknownFormat, UnknownRange
from imaging.errors import classified


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (UnidentifiedImageError("cannot identify"), UnknownFormat),
        (Image.DecompressionBombError("bomb"), FarTooManyPixels),
        (Image.DecompressionBombWarning("bomb"), FarTooManyPixels),
        (SyntaxError("broken PNG"), DamagedPicture),
        (struct.error("unpack requires"), DamagedPicture),
        (OSError("image file is truncated"), DamagedPicture),
        (UnknownRange("save it with 8 bits"), UnknownRange),
    ],
)
def test_each_kind_of_fault_has_a_type(raised: Exception, kind: type[UndecodablePicture]) -> None:
    """The type says what is wrong, the message is kept, and so is what Pillow raised."""
    with pytest.raises(UndecodablePicture) as caught, classified():
        raise raised
    assert type(caught.value) is kind
    assert str(caught.value) == str(raised)
    assert raised in (caught.value, caught.value.__cause__)


class Interrupted(BaseException):
    """What a signal's handler may raise in the middle of decoding."""


@pytest.mark.parametrize("raised", [MemoryError, KeyboardInterrupt, Interrupted])
def test_what_is_no_fault_of_the_picture_goes_through(raised: type[BaseException]) -> None:
    """Neither an end of the memory nor a signal is taken for a damaged picture."""
    with pytest.raises(raised), classified():
        raise raised
