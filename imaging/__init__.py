"""How any picture becomes a model's input, the same in training and in the service.

What a model learns from and what it is asked are decoded by this code alone, so that they cannot differ. It needs
``artifact`` (the rule is in a version's metadata), Pillow and NumPy.
"""

from imaging.decode import FORMATS, Pixels, open_picture, prepare, to_input, upright_size
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
    "open_picture",
    "plain_structure",
    "prepare",
    "to_input",
    "upright_size",
    "webp_size",
]
