"""What to do when a batch does not fit into memory: halve it; and when the disk is full: say so."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import TrainingError

_NAMES = ("ResourceExhaustedError", "OutOfMemoryError")  # TensorFlow's and PyTorch's
_SIGNS = (  # in errors of a wider class: JAX's, and those of CUDA's libraries under any backend
    "RESOURCE_EXHAUSTED",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUDA out of memory",
    "failed to allocate memory",
    "Dst tensor is not initialized",
)
_FULL_DISK = ("No space left on device", "Disk quota exceeded", "File too large")


class OutOfMemory(Exception):
    """A batch of ``batch_size`` pictures did not fit into memory."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self.batch_size = batch_size


def smaller_batch(full: OutOfMemory, devices: int, machines: int) -> int:
    """Return half the batch that did not fit, as a multiple of ``devices``, and print a line that says so.

    Raises:
        TrainingError: that leaves no picture for a device, or other ``machines`` still wait for the whole batch.
    """
    half = full.batch_size // 2 // devices * devices
    if not half:
        raise TrainingError(
            f"memory does not even hold a batch of {full.batch_size}; use a machine with more, a smaller network "
            "or smaller pictures"
        )
    if machines > 1:
        raise TrainingError(
            f"a batch of {full.batch_size} does not fit into this machine's memory; "
            f"give --batch-size {half} to all machines, with --fresh for the chief"
        )
    print(
        f"Out of memory: going on with a batch of {half} in place of {full.batch_size}, "
        "and a learning rate in proportion.",
        flush=True,
    )
    return half


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether a backend, or Python, raised ``error`` because memory ran out."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    named = type(error).__name__ in _NAMES or any(sign in text for sign in _SIGNS)
    return named and not _is_full_disk(text)


def _is_full_disk(text: str) -> bool:
    return any(sign in text for sign in _FULL_DISK)


@contextmanager
def watched(batch_size: int, folder: Path) -> Iterator[None]:
    """Raise OutOfMemory in place of whatever a backend raises when memory runs out.

    Raises:
        TrainingError: the disk of the run's ``folder`` is full, which TensorFlow takes for a want of memory as well.
    """
    try:
        yield
    except TrainingError:
        raise
    except Exception as error:
        if _is_full_disk(str(error)):
            raise TrainingError(
                f"{folder} has no room left; make some, and give the same command again to go on from the last epoch"
            ) from error
        if not is_out_of_memory(error):
            raise
        # The old traceback would keep the arrays alive that have to go.
        error.__traceback__ = None
        raise OutOfMemory(batch_size) from None
