"""Where a training computes: one device, all GPUs of a machine, or several machines that ``TF_CONFIG`` names.

Every device holds a replica of the network and gets an equal share of each batch; the gradients, and the statistics of
batch normalisation, are those of the whole batch, so that the number of devices does not change what is learned.
"""

import faulthandler
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError
from training.fit.hardware import gpus
from training.fit.out_of_memory import is_out_of_memory
from training.fit.recipe import Recipe
from training.network.model import every_layer

_JOIN_SECONDS = 600.0
_EAGER_WARNING = "eagerly has significant overhead"  # said of the one step that makes the metrics
_OTHER_TASKS = ("evaluator", "ps")  # which do not train
_EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """The machines of a training; ``number`` is this one's place among ``jobs``, pairs of task type and address.

    The first one is the chief: it keeps the checkpoints and publishes.
    """

    jobs: tuple[tuple[str, str], ...]
    number: int


@dataclass(frozen=True)
class Strategy:
    """How a training is distributed: ``tensorflow`` is TensorFlow's strategy, None for one device of one machine.

    ``worker`` is this machine's number among ``workers``; the chief has 0.
    """

    tensorflow: Any = None
    worker: int = 0
    workers: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this machine keeps the checkpoints and publishes."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """The number of devices on all machines."""
        return int(self.tensorflow.num_replicas_in_sync) if self.tensorflow else 1

    def scope(self) -> AbstractContextManager[Any]:
        """Return the context in which the network and its optimizer have to be made."""
        scope: AbstractContextManager[Any] = self.tensorflow.scope() if self.tensorflow else nullcontext()
        return scope

    def environment(self) -> dict[str, str]:
        """Return what a run's record says of it, e.g. ``4 on 2 machines``; nothing for a single device."""
        if not self.tensorflow:
            return {}
        return {"devices": f"{self.replicas} on {self.workers} machines" if self.workers > 1 else str(self.replicas)}

    def shared(self, recipe: Recipe, images: int) -> Recipe:
        """Return ``recipe`` with a batch size that all devices can share equally, at most ``images``.

        Raises:
            TrainingError: there are fewer images than devices.
        """
        if images < self.replicas:
            raise TrainingError(f"{images} training images cannot be shared among {self.replicas} devices; use fewer")
        if not self.tensorflow:
            return recipe
        wanted = min(recipe.batch_size, images)
        rounded = -(-wanted // self.replicas) * self.replicas
        return replace(recipe, batch_size=rounded if rounded <= images else images // self.replicas * self.replicas)

    def from_chief(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the chief's ``arrays`` on every machine; all have to call this, with the same shapes and dtypes."""
        if self.workers == 1:
            return list(arrays)
        import tensorflow as tf

        def add_up(given: list[Any]) -> Any:
            context = tf.distribute.get_replica_context()
            first = tf.equal(context.replica_id_in_sync_group, 0)
            counted = [tf.where(first, value, tf.zeros_like(value)) for value in given]
            return [context.all_reduce(tf.distribute.ReduceOp.SUM, value) for value in counted]  # of several dtypes

        @tf.function  # type: ignore[untyped-decorator]
        def exchange(given: list[Any]) -> Any:
            return self.tensorflow.run(add_up, args=(given,))

        sums = exchange([tf.constant(array) for array in arrays])
        return [np.asarray(self.tensorflow.experimental_local_results(each)[0]) for each in sums]

    def require_agreement(self, settings: Mapping[str, Any]) -> None:
        """Find out that a machine was started with other settings or other data than the chief.

        Raises:
            TrainingError: it was.
        """
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).digest()
        mine = np.frombuffer(digest, np.uint8).astype(np.int32)
        [chiefs] = self.from_chief([mine])
        if (chiefs != mine).any():
            raise TrainingError(
                f"worker {self.worker} was started with other options or other data than the chief; "
                "all machines need the same ones"
            )

    def finish(self) -> None:
        """Wait, as a worker, until the chief has published and calls this too, so that no machine ends before it.

        Raises:
            TrainingError: the chief failed.
        """
        try:
            with self.watched():
                self.from_chief([np.zeros(1, np.int32)])
        except TrainingError:
            if not self.is_chief:
                raise

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn the failure of another machine, which TensorFlow notices within half a minute, into TrainingError."""
        try:
            yield
        except Exception as error:
            if self.workers == 1 or is_out_of_memory(error) or not _is_lost_connection(error):
                raise
            raise TrainingError(
                f"another of the {self.workers} machines stopped or cannot be reached ({_cause(error)}); start "
                "all of them again with the same command to go on from the chief's last checkpoint"
            ) from error


ONE_DEVICE = Strategy()


def connect(join_seconds: float = _JOIN_SECONDS) -> Strategy:
    """Join the machines that ``TF_CONFIG`` names, or take all GPUs of this one; call it before TensorFlow is used.

    It says which machines it waits for; where they have not joined after ``join_seconds``, the process ends with exit
    code 1.

    Raises:
        TrainingError: ``TF_CONFIG`` makes no sense, or another Keras backend than TensorFlow is to use it.
    """
    text = os.environ.get("TF_CONFIG")
    cluster = parse(text) if text else None
    tensorflow = keras.backend.backend() == "tensorflow"
    if cluster is None:
        os.environ.pop("TF_CONFIG", None)  # TensorFlow reads it there as well
    else:
        if not tensorflow:
            raise TrainingError("TF_CONFIG needs the TensorFlow backend: unset KERAS_BACKEND or TF_CONFIG")
        return _join(cluster, join_seconds)
    if tensorflow and gpus() > 1:
        import tensorflow as tf

        _leave_out_eager_warning()
        return Strategy(tf.distribute.MirroredStrategy())
    return ONE_DEVICE


def parse(text: str) -> Cluster | None:
    """Read the JSON text of ``TF_CONFIG``; None where it names no other machine, as services of one machine set it.

    Raises:
        TrainingError: it is not as TensorFlow documents it, or has tasks other than ``chief`` and ``worker``.
    """
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster") or {}, config.get("task") or {}
        if sum(map(len, cluster.values())) < 2 and task.get("type") not in _OTHER_TASKS:
            return None
        jobs = tuple((kind, address) for kind in ("chief", "worker") for address in cluster.get(kind, []))
        kind, index = task["type"], int(task["index"])
        strange = sorted({*cluster, kind} - {"chief", "worker"})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError(f"TF_CONFIG cannot be read ({error!r}); it should be like {_EXAMPLE}") from error
    if strange:
        raise TrainingError(f"TF_CONFIG has tasks of type {', '.join(strange)}; only chief and worker train")
    if bad := [address for _, address in jobs if not _is_address(address)]:
        raise TrainingError(f"TF_CONFIG names {bad[0]!r}; an address is like 10.0.0.1:2222")
    own = [number for number, (of, _) in enumerate(jobs) if of == kind]
    if not 0 <= index < len(own):
        raise TrainingError(f"TF_CONFIG says that this is {kind} {index}, but its cluster has {len(own)} of that type")
    if len(set(jobs)) < len(jobs):
        raise TrainingError("TF_CONFIG names an address twice; every machine needs its own")
    return Cluster(jobs, own[index])


def synchronize_normalisation(model: keras.Model) -> None:
    """Let batch normalisation take its statistics from the whole batch, not from each device's share."""
    for layer in every_layer(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def _join(cluster: Cluster, join_seconds: float) -> Strategy:
    import tensorflow as tf

    _leave_out_eager_warning()
    others = ", ".join(address for number, (_, address) in enumerate(cluster.jobs) if number != cluster.number)
    print(
        f"Waiting for the machines of TF_CONFIG, at most {join_seconds:.0f} s; start the training on {others} too, "
        "and see that the ports are open.",
        flush=True,
    )
    # TensorFlow itself waits for an hour, in native code that lets no other thread of Python run. The watchdog of
    # faulthandler needs none; the traceback that it writes helps nobody.
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        faulthandler.dump_traceback_later(join_seconds, exit=True, file=nowhere)
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"the machines of TF_CONFIG could not be joined ({_cause(error)}); is "
                f"{cluster.jobs[cluster.number][1]} free on this machine, and can it reach the others?"
            ) from error
        finally:
            faulthandler.cancel_dump_traceback_later()
    return Strategy(strategy, cluster.number, len(cluster.jobs))


def _leave_out_eager_warning() -> None:
    import tensorflow as tf

    tf.get_logger().addFilter(lambda record: _EAGER_WARNING not in record.getMessage())


def _is_address(address: object) -> bool:
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536


def _is_lost_connection(error: Exception) -> bool:
    import tensorflow as tf

    errors = tf.errors
    return isinstance(
        error,
        errors.UnavailableError
        | errors.AbortedError
        | errors.CancelledError
        | errors.DeadlineExceededError
        | errors.FailedPreconditionError
        | errors.InternalError
        | errors.UnknownError,
    )


def _cause(error: Exception) -> str:
    """Return the one line of an error of TensorFlow that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line.rpartition("aborted by: ")[2] for line in lines if "aborted by: " in line]
    return (telling or lines or [type(error).__name__])[0][:200]
