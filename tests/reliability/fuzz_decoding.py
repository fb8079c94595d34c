"""A target of atheris: what decodes pictures may only say that it cannot. For the environment .venv-fuzz.

Python's side of the decoders guides the fuzzer; what libjpeg and its kin do inside is tried, and not seen.
``python tests/reliability/fuzz_decoding.py [options of libFuzzer] CORPUS``
"""

import contextlib
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["PIL", "imaging"]):
    from PIL import Image

    from artifact import Input
    from imaging import UndecodablePicture, open_picture, plain_structure, to_input

_SIDE = 32
_MOST_PIXELS = 2**20  # of what is decoded, so that no picture takes long by its size


def decode(content: bytes) -> None:
    """Decode ``content`` as the service does; raises whatever is raised that should not be."""
    with contextlib.suppress(UndecodablePicture, MemoryError):
        image = open_picture(content, known=plain_structure(content))
        if image.width * image.height <= _MOST_PIXELS:
            pixels = to_input(image, Input(height=_SIDE, width=_SIDE))
            assert pixels.shape == (_SIDE, _SIDE, 3)


if __name__ == "__main__":
    Image.MAX_IMAGE_PIXELS = _MOST_PIXELS  # of pictures inside of pictures, as the service sets it
    atheris.Setup(sys.argv, decode)
    atheris.Fuzz()
