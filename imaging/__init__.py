"""How any picture becomes a model's input, the same in training and in the service.

What a model learns from and what it is asked are decoded by this code alone, so that they cannot differ. It needs
``artifact`` (the rule is in a version's metadata), Pillow and NumPy.
"""

from imaging.decode import FORMATS, Pixels, UnknownRange, to_input

__all__ = ["FORMATS", "Pixels", "UnknownRange", "to_input"]
