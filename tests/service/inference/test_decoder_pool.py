"""Pictures that may cost any time or memory are decoded in processes, which end where they must."""

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from artifact import Input
from imaging import TooMuchWork, UndecodablePicture, UnknownFormat, open_picture, to_input
from service.inference import decoder_pool
from service.inference.decoder_pool import DecoderPool
from service.inference.errors import DeadlineExceeded, ImageTooLarge, InvalidImage, QueueFull, ServiceError
from service.inference.limits import DecodingMemory
from service.inference.runtime import ThreadRuntime
from tests.bombs import HOSTILE, webp_header
from tests.service.pictures import encoded, plain

pytestmark = pytest.mark.process

SIZE = Input(32, 32)
MAX_PIXELS = 50_000_000
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))


def new_pool(processes: int = 1, memory: int = 10**9) -> DecoderPool:
    """Return a pool of its own."""
    return DecoderPool(processes, MAX_PIXELS, DecodingMemory(memory, ThreadRuntime()), ThreadRuntime())


@pytest.fixture(scope="module")
def pool() -> DecoderPool:
    """Return a pool of one process that the tests of this file share."""
    return new_pool()


@pytest.fixture
def victim() -> Iterator[tuple[DecoderPool, int]]:
    """Return a pool of its own and its only process."""
    pool, before = new_pool(), children()
    pool.decode(plain("red", "GIF"), SIZE, in_seconds(20))
    (process,) = children() - before
    yield pool, process
    assert pool.decode(plain("red", "GIF"), SIZE, in_seconds(20)).pixels.shape == (32, 32, 3), "no other process came"
    assert process not in children(), "it goes on"


def in_seconds(seconds: float) -> float:
    """Return the time in so many seconds."""
    return time.monotonic() + seconds


def children() -> set[int]:
    """Return the processes that this one has started."""
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "decoder_process"], capture_output=True, check=False)
    return {int(line) for line in found.stdout.split()}


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "PNG", "JPEG"])
def test_pixels_are_those_of_this_process(pool: DecoderPool, kind: str) -> None:
    """Where a picture is decoded makes no difference."""
    content = encoded(NOISE, kind)
    np.testing.assert_array_equal(
        pool.decode(content, SIZE, in_seconds(20)).pixels, to_input(open_picture(content), SIZE)
    )


def test_faults_are_told_as_in_this_process(pool: DecoderPool) -> None:
    """With type and message."""
    for content in (encoded(NOISE, "WEBP")[:100], encoded(NOISE, "TIFF")[:5000], b"GIF89a", b"BM", b"nothing"):
        with pytest.raises(UndecodablePicture) as here:
            to_input(open_picture(content), SIZE)
        with pytest.raises(UndecodablePicture) as there:
            pool.decode(content, SIZE, in_seconds(20))
        assert type(there.value) is type(here.value)
        if not isinstance(here.value, UnknownFormat):  # which names an address
            assert str(there.value) == str(here.value)


@pytest.mark.slow
def test_size_is_checked_before_memory_is_taken(pool: DecoderPool) -> None:
    """Whatever the format is whose head says that there are too many pixels."""
    for content in (
        webp_header(16383, 16383),
        plain("red", "BMP", size=(8000, 7000)),
        plain("red", "GIF", (9000, 6000)),
    ):
        with pytest.raises(ImageTooLarge, match="at most 50,000,000"):
            pool.decode(content, SIZE, in_seconds(20))


def test_memory_is_what_was_granted() -> None:
    """A picture is refused that takes more than all pictures may, and one whose reader takes more than it should."""
    small = new_pool(memory=20_000_000)
    with pytest.raises(ImageTooLarge, match="there are 20 MB"):
        small.decode(plain("red", "TIFF", size=(2000, 2000)), SIZE, in_seconds(20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_pool, "_SPARE", 0.01)
        with pytest.raises(ImageTooLarge, match="more memory than its size asks for"):
            small.decode(plain("red", "BMP", size=(1500, 1500)), SIZE, in_seconds(20))
    assert small.decode(plain("red", "BMP", size=(1500, 1500)), SIZE, in_seconds(20)).pixels.shape == (32, 32, 3)


def test_work_is_bounded(victim: tuple[DecoderPool, int]) -> None:
    """A picture that takes far more processor time than its size asks for ends its process; the next has another."""
    pool, _ = victim
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_pool, "_DECODING_SECONDS", 0.01)
        patch.setattr(decoder_pool, "_PIXELS_A_SECOND", 10**9)
        with pytest.raises(TooMuchWork, match="far longer"):
            pool.decode(encoded(NOISE.resize((1600, 1200)), "AVIF"), SIZE, in_seconds(20))


def test_nobody_waits_beyond_the_deadline(victim: tuple[DecoderPool, int]) -> None:
    """A process that hangs is killed at the deadline, and the next picture has another one."""
    pool, process = victim
    os.kill(process, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        pool.decode(plain("red", "GIF"), SIZE, in_seconds(0.3))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(("sent", "error"), [(signal.SIGKILL, ImageTooLarge), (signal.SIGSEGV, InvalidImage)])
def test_a_process_that_dies_costs_its_picture(
    victim: tuple[DecoderPool, int], sent: int, error: type[ServiceError]
) -> None:
    """The kernel's kill for memory and a crash are told at once, and the next picture has another process."""
    pool, process = victim
    os.kill(process, signal.SIGSTOP)  # until the picture is there
    for signals_later, each in enumerate((sent, signal.SIGCONT)):
        threading.Timer(0.2 + 0.1 * signals_later, _kill, (process, each)).start()
    started = time.monotonic()
    with pytest.raises(error):
        pool.decode(plain("red", "GIF"), SIZE, in_seconds(20))
    assert time.monotonic() - started < 5


def _kill(process: int, sent: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, sent)


def test_processes_share_the_work_and_no_more_are_started() -> None:
    """Of two processes each takes the next picture; ten that ask at the same time have no third one."""
    pool, before = new_pool(processes=2), children()
    threads = [
        threading.Thread(target=pool.decode, args=(encoded(NOISE, "WEBP"), SIZE, in_seconds(30))) for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(children() - before) == 2


@pytest.mark.parametrize("missing", ["process", "thread", "room to wait"])
def test_what_cannot_be_started_costs_no_later_picture(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Without memory for a thread, for its process or for its wait a picture is refused, and the next has all three."""

    def fail(*_: object, **__: object) -> None:
        raise {
            "process": OSError(errno.ENOMEM, "Cannot allocate memory"),
            "thread": RuntimeError("can't start"),
            "room to wait": MemoryError(),
        }[missing]

    pool, before = new_pool(), children()
    with monkeypatch.context() as without:
        target = {
            "process": (decoder_pool, "_Process"),
            "thread": (threading.Thread, "start"),
            "room to wait": (pool, "_next"),
        }[missing]
        without.setattr(*target, fail)
        with pytest.raises((QueueFull, DeadlineExceeded)):
            pool.decode(plain("red", "GIF"), SIZE, in_seconds(1))
    assert pool.decode(plain("red", "GIF"), SIZE, in_seconds(20)).pixels.shape == (32, 32, 3)
    assert len(children() - before) == 1


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures_cost_an_error_or_little_time(pool: DecoderPool, name: str) -> None:
    """Each is answered with pixels or an error within seconds, even here, where nothing is known of its structure."""
    content = HOSTILE[name]()
    started = time.monotonic()
    with contextlib.suppress(UndecodablePicture, ImageTooLarge):
        pool.decode(content, SIZE, in_seconds(10))
    assert time.monotonic() - started < 4
