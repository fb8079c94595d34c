"""Which work of a request is offloaded to a thread; the rest stays where the request is, on the worker's event loop.

What stays keeps all other requests of the worker waiting, and a thread costs more than a small picture does. So:

| work                      | stays on the loop                 | since                                                |
|---------------------------|-----------------------------------|------------------------------------------------------|
| a request with a body     | up to 16 KiB, not compressed      | the worst that so few bytes can ask for takes 30 ms; |
|                           |                                   | compressed, they may become any size                 |
| the same of a plain head, | up to 1 MiB                       | taking it out of a form is a copy; it is decoded     |
| with a picture as a file  |                                   | in a thread, and no thread waits for the engine      |
| another request           | a probe                           | the others read files                                |
| the pictures of a request | up to 8 that are to be decoded    | few bytes may still take two milliseconds each       |
| decoding one picture      | fewer than 128 x 128 pixels, in   | that takes a third of a millisecond                  |
|                           | all scans together                |                                                      |
| the numbers of an answer  | up to 2,048, as of one embedding  | JSON takes 1 ms for 1,500 of them                    |
| the engine, for one image | it took less than 10 ms last time | two changes of threads cost more than all the rest   |
|                           |                                   | of a small picture (benchmarks/NOTES.md)             |
"""

_LOOP_BODY = 16 * 1024  # bytes
_LOOP_FILE = 1024 * 1024
_PROBES = ("/health", "/v2/health")
_LOOP_PICTURES = 8
_LOOP_PIXELS = 128 * 128
_LOOP_NUMBERS = 2048
_LOOP_ENGINE_SECONDS = 0.01


def offloads_request(method: str, path: str, body: int, *, compressed: bool) -> bool:
    """Say whether a request, whose body of ``body`` bytes is there, runs in a thread as a whole."""
    if method == "POST":
        return compressed or body > _LOOP_BODY
    return not path.startswith(_PROBES)


def offloads_plain_request(body: int, *, file: bool) -> bool:
    """Say whether a plain request, whose body has ``body`` bytes, is left to a parser and a thread.

    ``file`` says that its pictures are files or in a form, and not in JSON or a tensor.
    """
    return body > (_LOOP_FILE if file else _LOOP_BODY)


def offloads_pictures(encoded: int) -> bool:
    """Say whether a request with ``encoded`` pictures to decode goes through them in a thread."""
    return encoded > _LOOP_PICTURES


def offloads_decoding(pixels: int) -> bool:
    """Say whether a picture is decoded in a thread, for which that goes through ``pixels``, some more than once."""
    return pixels >= _LOOP_PIXELS


def offloads_numbers(numbers: int) -> bool:
    """Say whether an answer that has so many ``numbers`` is written in a thread."""
    return numbers > _LOOP_NUMBERS


def offloads_engine(seconds: float) -> bool:
    """Say whether the engine runs a lone image in a thread of its own, where the last one took ``seconds``."""
    return seconds >= _LOOP_ENGINE_SECONDS
