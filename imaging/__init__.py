"""How any picture becomes a model's input, the same in training and in the service.

What a model learns from and what it is asked are decoded by this code alone, so that they cannot differ. It needs
``artifact`` (the rule is in a version's metadata), Pillow, pi-heif and NumPy.
"""

from imaging.decode import (
    FORMATS,
    Pixels,
    in_shape,
    open_picture,
    part_seen,
    prepare,
    to_input,
    to_input_and_view,
    upright_size,
    whole,
)
from imaging.errors import (
    DamagedPicture,
    FarTooManyPixels,
    TooMuchWork,
    UndecodablePicture,
    UnknownFormat,
    UnknownRange,
)
from imaging.structure import Plain, plain_structure, webp_size

__all__ = [
    "FORMATS",
    "DamagedPicture",
    "FarTooManyPixels",
    "Pixels",
    "Plain",
    "TooMuchWork",
    "UndecodablePicture",
    "UnknownFormat",
    "UnknownRange",
    "in_shape",
    "open_picture",
    "part_seen",
    "plain_structure",
    "prepare",
    "to_input",
    "to_input_and_view",
    "upright_size",
    "webp_size",
    "whole",
]
