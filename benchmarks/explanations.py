"""Whether heat maps tell what a network looks at, and what they cost; of a version, on a folder of labelled pictures.

Two pictures of different labels are put side by side, and the maps of both labels should lie on their halves. And where
the weights are drawn anew, the map has to become another (Adebayo et al., arXiv 1810.03292): one that stays would only
show the edges of the picture. Times are of a running service, one request after the other, the routes in turn.
"""

from __future__ import annotations

import argparse
import http.client
import io
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, the folder of the packages is not on the path
    sys.path.insert(0, str(ROOT))

from artifact import Input, read_metadata  # noqa: E402
from artifact.layout import INT8_MODEL  # noqa: E402
from benchmarks.measuring import JPEG, Body, first_answer, free_port, memory, post, running  # noqa: E402
from imaging import open_picture, to_input  # noqa: E402
from machine import import_openvino, openvino_core, usable_cores  # noqa: E402
from service.inference.engine import load  # noqa: E402
from service.inference.evidence import EvidenceNetwork, with_evidence  # noqa: E402

Pixels = npt.NDArray[np.uint8]

ROUTES = ("/predict", "/explain", "/explain?format=png")

_WARM_UP = 10  # requests of each
_RUNS = 200  # of a network
_PAIRS = 50  # each gives two maps
_RANDOM = 50  # pictures
_LARGE = ((1920, 1080), (4000, 3000))  # pixels, of photographs that people send
_SEED = 0


class Labelled(NamedTuple):
    """A picture and the number of its label."""

    image: Image.Image
    label: int


def explaining(
    version: Path, *, int8: bool = False, seed: int | None = None, head_only: bool = False
) -> EvidenceNetwork:
    """Return what explains the network of a version; with a ``seed`` its weights, or those of its head, are random."""
    model = openvino_core().read_model(version / INT8_MODEL if int8 else version)
    if seed is not None:
        draw_weights(model, seed, head_only=head_only)
    explained, grid = with_evidence(model)
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return EvidenceNetwork(openvino_core().compile_model(explained, "CPU", options), grid)


def draw_weights(model: Any, seed: int, *, head_only: bool) -> None:
    """Put the weights of OpenVINO's float ``model`` in another order, all of them or those of its linear layer.

    So each layer has weights as large as before, that know nothing.
    """
    ops = import_openvino().opset13
    rng = np.random.default_rng(seed)
    kinds = ("MatMul",) if head_only else ("MatMul", "Convolution", "GroupConvolution")
    for node in model.get_ordered_ops():
        if node.get_type_name() not in kinds:
            continue
        weights = node.input_value(1).get_node()
        while weights.get_type_name() != "Constant":
            weights = weights.input_value(0).get_node()
        drawn = rng.permuted(weights.get_data().copy().reshape(-1)).reshape(weights.get_data().shape)
        weights.output(0).replace(ops.constant(drawn).output(0))


def beside(left: Image.Image, right: Image.Image, size: Input) -> Pixels:
    """Return the middles of two pictures side by side, uint8 [H, W, 3] of ``size``."""
    whole = Image.new("RGB", (2 * size.width, 2 * size.height))
    for number, image in enumerate((left, right)):
        half = Input(2 * size.height, size.width)
        whole.paste(Image.fromarray(_scaled(image, half)), (number * size.width, 0))
    return _scaled(whole, size)


def _scaled(image: Image.Image, size: Input) -> Pixels:
    return to_input(image.convert("RGB"), size)


def on_its_half(evidence: npt.NDArray[np.float32], *, right: bool) -> bool:
    """Say whether more than half of what speaks for a label, float32 [h, w], lies on this half of the picture."""
    positive = np.maximum(evidence, 0)
    middle = np.arange(positive.shape[1]) + 0.5 - positive.shape[1] / 2
    side = float((positive * np.sign(middle)).sum())
    return side > 0 if right else side < 0


def halves_found(network: EvidenceNetwork, pairs: Sequence[tuple[Labelled, Labelled]], size: Input) -> list[bool]:
    """Return for each label of each pair whether its map lies on its half."""
    found = []
    for left, right in pairs:
        evidence = network.run(beside(left.image, right.image, size)[np.newaxis]).evidence[0]  # [h, w, classes]
        found += [on_its_half(evidence[..., left.label], right=False)]
        found += [on_its_half(evidence[..., right.label], right=True)]
    return found


def correlation(first: EvidenceNetwork, second: EvidenceNetwork, images: Pixels) -> float:
    """Return the mean correlation of the maps that two networks give of the label that the first one answers."""
    found = []
    for image in images:
        told, other = first.run(image[np.newaxis]), second.run(image[np.newaxis])
        label = int(told.probabilities[0].argmax())
        maps = [each.evidence[0, ..., label].ravel() for each in (told, other)]
        if min(np.ptp(map_) for map_ in maps) > 0:
            found.append(float(np.corrcoef(maps[0], maps[1])[0, 1]))
    return float(np.mean(found))


def read_folder(folder: Path, labels: Sequence[str], size: Input, network: EvidenceNetwork) -> list[Labelled]:
    """Return the pictures in ``folder``/label/file to which ``network`` gives that label, in an order by chance."""
    found = []
    for label, name in enumerate(labels):
        for file in sorted((folder / name).glob("*")):
            image = open_picture(file.read_bytes()).convert("RGB")
            probabilities = network.run(_scaled(image, size)[np.newaxis]).probabilities
            if probabilities.argmax() == label:
                found.append(Labelled(image, label))
    order = np.random.default_rng(_SEED).permutation(len(found))
    return [found[index] for index in order]


def pairs_of(pictures: Sequence[Labelled], count: int) -> list[tuple[Labelled, Labelled]]:
    """Return up to ``count`` pairs of different labels, each picture in one."""
    left, pairs = list(pictures), list[tuple[Labelled, Labelled]]()
    while left and len(pairs) < count:
        first = left.pop()
        other = next((index for index, each in enumerate(left) if each.label != first.label), None)
        if other is None:
            break
        pairs.append((first, left.pop(other)))
    return pairs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", type=Path, help="folder of a version")
    parser.add_argument("folder", type=Path, help="folder with a subfolder of pictures for each of its labels")
    parser.add_argument("--requests", type=int, default=200, help="of each kind (default: %(default)s)")
    options = parser.parse_args()
    record = read_metadata(options.version)
    size = record.input
    network = explaining(options.version)
    pictures = read_folder(options.folder, record.labels, size, network)
    pairs = pairs_of(pictures, _PAIRS)
    if not pairs:
        sys.exit(f"error: {options.folder} holds no two pictures that the version gives their labels, each another one")
    networks = {"float32": network}
    if record.int8 is not None:
        networks["int8"] = explaining(options.version, int8=True)
    for name, each in networks.items():
        found = halves_found(each, pairs, size)
        print(f"{name}: {sum(found)} of {len(found)} maps lie on the half of their picture")
    images = np.stack([_scaled(each.image, size) for each in pictures[:_RANDOM]])
    for name in networks:
        _print_network(options.version, name, images[:1])
    for what, head_only in (("a random head", True), ("random weights", False)):
        drawn = explaining(options.version, seed=_SEED, head_only=head_only)
        print(f"{what}: the maps correlate with the network's by {correlation(network, drawn, images):.2f}")
    image = pictures[0].image
    for photograph in (image, *(image.resize(pixels, Image.Resampling.LANCZOS) for pixels in _LARGE)):
        _print_cost(options.version, photograph, options.requests)


def _print_network(version: Path, name: str, image: Pixels) -> None:
    """Print what the network takes for a picture with its evidence and without, in turn."""
    plain = load("openvino", version, name, usable_cores())
    if plain.explaining is None:
        sys.exit(f"error: {version} cannot be explained")
    network = plain.explaining()
    runs: tuple[Callable[[Pixels], object], ...] = (plain.predict, network.run)
    seconds: tuple[list[float], ...] = ([], [])
    for _ in range(_WARM_UP + _RUNS):
        for run, found in zip(runs, seconds, strict=True):
            started = time.perf_counter()
            run(image)
            found.append(time.perf_counter() - started)
    without, with_it = (1000 * median(found[_WARM_UP:]) for found in seconds)
    print(f"{name}: the network takes {without:.2f} ms, with its evidence {with_it:.2f} ms")


def _print_cost(version: Path, image: Image.Image, requests: int) -> None:
    body = Body(in_jpeg(image), JPEG)
    cost = cost_of(version, body, requests)
    print(f"a JPEG of {image.width} x {image.height} pixels, {len(body.content) // 1024} KiB; medians:")
    for route, each in cost.milliseconds.items():
        print(f"  {route:<20} {each:6.1f} ms, {each / cost.milliseconds[ROUTES[0]]:.2f} of an answer")
    print(f"memory of the service: {cost.before / 1e6:.0f} MB, once it has explained {cost.after / 1e6:.0f} MB")


def in_jpeg(image: Image.Image) -> bytes:
    """Return the file of a photograph as cameras write it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


class Cost(NamedTuple):
    """What a service takes: the median milliseconds of each route, and bytes before the first explanation and after."""

    milliseconds: dict[str, float]
    before: int
    after: int


def cost_of(version: Path, body: Body, requests: int) -> Cost:
    """Return what a service of its own takes for one picture, of which it is asked all routes in turn."""
    version, port = version.resolve(), free_port()
    settings = {"MODEL_DIR": str(version.parents[1]), "MODEL_NAME": version.parent.name, "MODEL_VERSION": version.name}
    command = [sys.executable, "-m", "service"]
    seconds: dict[str, list[float]] = {route: [] for route in ROUTES}
    with running(command, {**settings, "PORT": str(port), "LOG_LEVEL": "warning"}) as process:
        first_answer(port, body, process)
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            for _ in range(_WARM_UP):
                post(connection, body)
            before = memory(process.pid)
            for number, route in itertools.product(range(_WARM_UP + requests), ROUTES):
                started = time.perf_counter()
                if (status := post(connection, body, route)) != http.HTTPStatus.OK:
                    sys.exit(f"error: {route} answers with {status}")
                if number >= _WARM_UP:
                    seconds[route].append(time.perf_counter() - started)
            after = memory(process.pid)
    return Cost({route: 1000 * median(each) for route, each in seconds.items()}, before, after)


if __name__ == "__main__":
    main()
