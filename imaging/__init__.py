"""How any picture becomes a model's input, the same in training and in the service.

What a model learns from and what it is asked are decoded by this code alone, so that they cannot differ. It needs
``artifact`` (the rule is in a version's metadata), Pillow and NumPy.
"""

from imaging.decode import FORMATS, Pixels, open_picture, to_input
from imaging.errors import DamagedPicture, FarTooManyPixels, UndecodablePicture, UnknownFormat, UnknownRange

__all__ = [
    "FORMATS",
    "DamagedPicture",
    "FarTooManyPixels",
    "Pixels",
    "UndecodablePicture",
    "UnknownFormat",
    "UnknownRange",
    "open_picture",
    "to_input",
]
