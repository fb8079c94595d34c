"""Damaged pictures: what is left of good ones after bytes were changed, lost, doubled, or lengths were made large."""

import random
from collections.abc import Iterator

_LARGE = (0x7F, 0x80, 0xFE, 0xFF)


def mutated(good: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield ``count`` damaged pictures made of the ``good`` ones, the same for each ``seed``."""
    chance = random.Random(seed)
    for _ in range(count):
        content = bytearray(chance.choice(good))
        for _ in range(1 << chance.randrange(5)):
            _damage(content, chance)
        yield bytes(content)


def _damage(content: bytearray, chance: random.Random) -> None:
    """Change ``content`` in one place; heads, which say how large all else is, more often than their share."""
    if not content:
        return
    at = chance.randrange(min(len(content), chance.choice((64, 1024, len(content)))))
    kind = chance.randrange(7)
    if kind == 0:
        content[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        content[at : at + 4] = bytes(chance.choice(_LARGE) for _ in range(chance.randint(1, 4)))
    elif kind == 2:
        content[at : at + chance.randint(1, 8)] = chance.randbytes(chance.randint(1, 8))
    elif kind == 3:
        del content[at : at + chance.randint(1, 64)]
    elif kind == 4:
        start = chance.randrange(len(content))
        content[at:at] = content[start : start + chance.randint(1, 64)] * chance.choice((1, 1, 1, 500))
    elif kind == 5:
        content[at : at + 2] = bytes(2)
    else:
        del content[chance.randint(at, len(content)) :]
