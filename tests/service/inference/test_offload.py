"""What runs on the event loop and what in a thread, at the limits of each kind of work."""

import pytest

from service.inference.offload import (
    offloads_decoding,
    offloads_engine,
    offloads_numbers,
    offloads_pictures,
    offloads_plain_request,
    offloads_request,
)


@pytest.mark.parametrize(
    ("method", "path", "body", "compressed", "offloaded"),
    [
        ("POST", "/predict", 0, False, False),
        ("POST", "/predict", 16_384, False, False),
        ("POST", "/predict", 16_385, False, True),
        ("POST", "/predict", 100, True, True),
        ("POST", "/health", 16_385, False, True),
        ("GET", "/health", 0, False, False),
        ("GET", "/health/ready", 0, False, False),
        ("HEAD", "/v2/health/live", 0, False, False),
        ("GET", "/metrics", 0, False, True),
        ("GET", "/", 0, False, True),
        ("GET", "/v2", 0, False, True),
    ],
)
def test_short_bodies_and_probes_stay_on_the_loop(
    method: str, path: str, body: int, compressed: bool, offloaded: bool
) -> None:
    """A request is offloaded by the bytes of its body, for being compressed, or as what is no probe."""
    assert offloads_request(method, path, body, compressed=compressed) == offloaded


def test_what_takes_long_by_itself_is_offloaded() -> None:
    """Many pictures, large ones, long answers and a slow engine each have a limit, beyond which a thread takes them."""
    assert [offloads_pictures(count) for count in (0, 1, 8, 9)] == [False, False, False, True]
    assert [offloads_decoding(pixels) for pixels in (1, 128 * 128 - 1, 128 * 128)] == [False, False, True]
    assert [offloads_numbers(count) for count in (10, 2048, 2049)] == [False, False, True]
    assert [offloads_engine(seconds) for seconds in (0.0, 0.0099, 0.01)] == [False, False, True]


def test_pictures_in_files_stay_on_the_loop() -> None:
    """Taking a picture out of a form costs little, so that it may be longer than JSON or a tensor."""
    assert [offloads_plain_request(size, file=True) for size in (0, 2**20, 2**20 + 1)] == [False, False, True]
    assert [offloads_plain_request(size, file=False) for size in (0, 2**14, 2**14 + 1)] == [False, False, True]
