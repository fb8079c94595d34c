"""What spoke for each label, and where: a version's own network with one output more.

All networks that the trainer makes end in pooling and a linear layer. So each logit is a sum over the positions of the
maps that are pooled, but for a constant, and what a position adds to it follows in one pass, without gradients:

- where the mean is pooled, as on all backbones, this is the class activation map (Zhou et al., arXiv 1512.04150);
- where the maximum is, as in the project's own network, a channel counts where it has its maximum. That is HiResCAM
  (Draelos and Carin, arXiv 2011.08891), the gradient times the maps, whose gradient is known here; of the mean, it is
  the class activation map.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from artifact.validate import INPUT, OUTPUT
from machine import import_openvino

Evidence = npt.NDArray[np.float32]  # [N, h, w, classes]
_Pair = npt.NDArray[np.float64]  # of height and width

_EVIDENCE = "evidence"
_POOLINGS = ("ReduceMean", "ReduceMax")
_SCALES = ("MatMul", "Multiply", "Divide")
# What they add, or round, is the same at every position; and a transposition of rows leaves them as they are.
_NEUTRAL = ("Add", "Subtract", "FakeQuantize", "Convert", "Transpose")
_LAST = ("Softmax", "Sigmoid")
_WINDOWS = ("Convolution", "GroupConvolution", "MaxPool", "AvgPool")
_MOST_CELLS, _MOST_NUMBERS = 128 * 128, 2**24  # of a map, and of those of all labels
_DEPTH = 8  # of what is computed of constants alone, such as weights in int8


class Grid(NamedTuple):
    """The rectangle of the model's input that rows and columns of a map divide evenly, in pixels.

    It may reach beyond the input, or end before it: convolutions and poolings leave out or add pixels at the edges.
    """

    left: float
    top: float
    right: float
    bottom: float


class Told(NamedTuple):
    """The probabilities, float32 [N, classes], and what each position of the maps added to the logit of each label."""

    probabilities: npt.NDArray[np.float32]
    evidence: Evidence


class EvidenceNetwork:
    """A compiled network that tells where what it answers comes from; called by one thread at a time."""

    def __init__(self, compiled: Any, grid: Grid) -> None:
        """Take what OpenVINO made of ``with_evidence``, and where its maps lie."""
        self._request = compiled.create_infer_request()
        self._input, self._output = compiled.input(INPUT), compiled.output(OUTPUT)
        self._evidence = compiled.output(_EVIDENCE)
        self.grid = grid

    def run(self, images: npt.NDArray[np.uint8]) -> Told:
        """Return what is told of ``images``, uint8 [N, H, W, 3]."""
        self._request.infer({self._input: images}, share_inputs=True)
        evidence = self._request.get_tensor(self._evidence).data  # of a tensor that is used again
        probabilities = self._request.get_tensor(self._output).data
        return Told(np.array(probabilities, np.float32), np.array(evidence, np.float32))


def can_explain(model: Any) -> bool:
    """Say whether OpenVINO's ``model`` ends in pooling and a linear layer, as ``with_evidence`` needs it."""
    return _head(model) is not None


def with_evidence(model: Any) -> tuple[Any, Grid]:
    """Return OpenVINO's ``model`` with its evidence as one output more, and where the maps lie.

    Raises:
        ValueError: it does not end in pooling and a linear layer.
    """
    head = _head(model)
    if head is None:
        raise ValueError("the network does not end in pooling and a linear layer")
    openvino = import_openvino()
    ops = openvino.opset13
    evidence = _positions(ops, head)  # [N, h, w, D]
    for node in head.layers:
        other = node.input_value(1)
        match node.get_type_name():
            case "MatMul":
                evidence = ops.matmul(evidence, other, False, node.get_attributes()["transpose_b"])
            case "Multiply":
                evidence = ops.multiply(evidence, _other(node))
            case "Divide":
                evidence = ops.divide(evidence, other)
    evidence.output(0).set_names({_EVIDENCE})
    results = [*model.get_results(), ops.result(evidence)]
    return openvino.Model(results, model.get_parameters()), _grid(model, head)


class _Head(NamedTuple):
    """What follows the maps: the pooling, and the layers between it and the probabilities that scale what it gives.

    ``axes`` are those of height and width in the maps, [N, h, w, D] or [N, D, h, w].
    """

    pooling: Any
    axes: tuple[int, int]
    layers: list[Any]

    @property
    def maps(self) -> Any:
        """The output that is pooled."""
        return self.pooling.input_value(0)

    @property
    def sides(self) -> tuple[int, int]:
        """The height and width of the maps."""
        shape = self.maps.get_partial_shape()
        return shape[self.axes[0]].get_length(), shape[self.axes[1]].get_length()


def _head(model: Any) -> _Head | None:
    """Return the head of ``model``; None where it is of another kind."""
    pooling = next((node for node in _upwards(model.output(OUTPUT).get_node()) if _axes(node)), None)
    axes = _axes(pooling) if pooling is not None else None
    if pooling is None or axes is None:
        return None
    layers, output = [], pooling.output(0)
    while len(following := [node for node in _consumers(output) if _is_linear(node)]) == 1:
        [node] = following
        if node.get_type_name() in _SCALES:
            layers.append(node)
        output = node.output(0)
    shape = output.get_partial_shape()
    ends = any(node.get_type_name() in _LAST for node in _consumers(output)) and len(shape) == 2 and shape[1].is_static
    head = _Head(pooling, axes, layers)
    cells = math.prod(head.sides)
    return head if ends and cells <= _MOST_CELLS and cells * shape[1].get_length() <= _MOST_NUMBERS else None


def _upwards(node: Any) -> Iterator[Any]:
    """Yield what ``node`` is computed from, the nearest first, each once."""
    near, seen = [node], set()
    while near:
        node = near.pop(0)
        yield node
        for value in node.input_values():
            above = value.get_node()
            if above.get_name() not in seen:
                seen.add(above.get_name())
                near.append(above)


def _axes(node: Any) -> tuple[int, int] | None:
    """Return the axes of height and width where ``node`` makes one number of each channel of maps; else None."""
    if node.get_type_name() not in _POOLINGS or len(node.get_output_partial_shape(0)) != 2:
        return None
    shape, axes = node.get_input_partial_shape(0), node.input_value(1).get_node()
    if len(shape) != 4 or axes.get_type_name() != "Constant":
        return None
    found = tuple(sorted(int(axis) % 4 for axis in np.ravel(axes.get_data())))
    static = all(shape[axis].is_static for axis in found)
    return (found[0], found[1]) if found in ((1, 2), (2, 3)) and static else None


def _consumers(output: Any) -> list[Any]:
    return [target.get_node() for target in output.get_target_inputs()]


def _is_linear(node: Any) -> bool:
    """Say whether ``node`` scales what comes to it, or adds to it, by what no picture changes."""
    name = node.get_type_name()
    if name not in (*_SCALES, *_NEUTRAL) or (name == "Transpose" and not _keeps_rows(node)):
        return False
    fixed = [_is_constant(value) for value in node.input_values()]
    first = not fixed[0] and all(fixed[1:])
    return first or (name in ("Multiply", "Add") and fixed == [True, False])


def _keeps_rows(transpose: Any) -> bool:
    order = transpose.input_value(1).get_node()
    return order.get_type_name() == "Constant" and bool((order.get_data() == (0, 1)).all())


def _other(node: Any) -> Any:
    """Return that input of a linear ``node`` which is the same for all pictures."""
    first, second = node.input_values()
    return first if _is_constant(first) else second


def _is_constant(output: Any, depth: int = _DEPTH) -> bool:
    node = output.get_node()
    if node.get_type_name() == "Constant":
        return True
    inputs = node.input_values()
    return bool(inputs) and depth > 0 and all(_is_constant(value, depth - 1) for value in inputs)


def _positions(ops: Any, head: _Head) -> Any:
    """Return what each position of the maps adds to what they are pooled to, float32 [N, h, w, D]."""
    rows, columns = head.sides
    pooled = head.pooling.output(0)  # [N, D]
    maps = head.maps
    if head.pooling.get_type_name() == "ReduceMax" and maps.get_node().get_type_name() == "FakeQuantize":
        maps = maps.get_node().input_value(0)  # of which no two are the same for being rounded
    if head.axes != (1, 2):
        maps = ops.transpose(maps, np.array([0, 2, 3, 1]))
    if head.pooling.get_type_name() == "ReduceMean":
        return ops.multiply(maps, np.float32(1 / (rows * columns)))
    in_a_row = ops.reshape(maps, np.array([0, rows * columns, -1]), special_zero=True)  # [N, h * w, D]
    # By its number: where bfloat16 computes, the maximum itself may have been rounded in another way.
    highest = ops.topk(in_a_row, np.int32(1), 1, "max", "none").output(1)  # [N, 1, D]
    counts = ops.convert(
        ops.equal(highest, np.arange(rows * columns, dtype=np.int32)[np.newaxis, :, np.newaxis]), "f32"
    )
    parts = ops.multiply(counts, ops.unsqueeze(pooled, np.array(1)))
    return ops.reshape(parts, np.array([0, rows, columns, -1]), special_zero=True)


def _grid(model: Any, head: _Head) -> Grid:
    """Return where the maps lie: the middle of each cell is the middle of what its position sees.

    Araujo et al. (Distill, 2019) derive the formula.
    """
    shape = model.input(INPUT).get_partial_shape()
    height, width = shape[1].get_length(), shape[2].get_length()
    output = head.maps
    start, step = np.zeros(2), np.ones(2)  # of the first position, and between two, in the coordinates of ``output``
    while (node := output.get_node()).get_type_name() != "Parameter":
        if node.get_type_name() in _WINDOWS:
            start, step = _through_window(node, start, step)
        elif node.get_type_name() == "Pad":
            start = start - _padded(node)
        output = max(_data(node), key=_size)
    top, left = start + 0.5 - step / 2
    bottom, right = (top, left) + step * head.sides
    grid = Grid(float(left), float(top), float(right), float(bottom))
    off = max(abs(left), abs(top), abs(right - width), abs(bottom - height))
    return grid if off <= max(step) else Grid(0.0, 0.0, float(width), float(height))


def _data(node: Any) -> list[Any]:
    """Return the inputs of ``node`` that maps may come from."""
    return list(node.input_values()[:1] if node.get_type_name() in _WINDOWS else node.input_values())


def _size(output: Any) -> int:
    """Return how many numbers ``output`` has for a picture, 0 where that is not known; the largest input is maps."""
    shape = output.get_partial_shape()
    if len(shape) < 2 or not all(dimension.is_static for dimension in list(shape)[1:]):
        return 0
    return math.prod(dimension.get_length() for dimension in list(shape)[1:])


def _through_window(node: Any, start: _Pair, step: _Pair) -> tuple[_Pair, _Pair]:
    """Return ``start`` and ``step`` in the coordinates of what a convolution or pooling is of."""
    attributes = node.get_attributes()
    stride, before = np.array(attributes["strides"]), np.array(attributes["pads_begin"])
    side = np.array(attributes["kernel"] if "kernel" in attributes else list(node.get_input_shape(1))[-2:])
    side = (side - 1) * np.array(attributes.get("dilations", (1, 1))) + 1
    return start * stride - before + (side - 1) / 2, step * stride


def _padded(node: Any) -> _Pair:
    """Return how many rows and columns a Pad adds before the first, whichever way its maps lie."""
    before = node.input_value(1).get_node().get_data()
    return np.array(before[2:] if before[3] else before[1:3], np.float64)
