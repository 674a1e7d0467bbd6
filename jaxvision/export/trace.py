"""A traced forward pass as a graph of ONNX operations, one table of them.

What does not depend on the images is computed here and becomes a constant. Arrays of
rank 4 are images `[B, H, W, C]` in JAX and lie `[B, C, H, W]` in the graph, as ONNX's
convolutions want them, so that nothing is transposed between its ends. What constants
do to a channel, a sum or a product, becomes an `Affine` operation, which
`jaxvision.export.fold` moves into the convolution before it.
"""

import dataclasses
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from jaxvision.errors import InputError
from jaxvision.traces import called

Value = str | np.ndarray
"""Of the trace: the name of a result in the graph, or a constant in JAX's layout."""

Shape = Sequence[int]

TO_CHANNELS_FIRST = (0, 3, 1, 2)
TO_CHANNELS_LAST = (0, 2, 3, 1)


@dataclasses.dataclass
class Node:
    """One operation.

    op: ONNX's name, or `Affine`: the last JAX axis times `scale` plus `shift`.
    inputs: names of results or constants; "" for one left out.
    rank: of its output.
    """

    op: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]
    rank: int


class Graph:
    """Operations in order, and their constants by name."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.reshaped: dict[str, tuple[str, Shape]] = {}
        """What a reshape was given, and JAX's shape of that."""
        self._count = 0

    def add(self, op: str, *inputs: str, rank: int, **attributes: Any) -> str:
        """Appends an operation; returns the name of its output."""
        node = Node(op, list(inputs), self._name(op), attributes, rank)
        self.nodes.append(node)
        return node.output

    def constant(self, array: Any) -> str:
        """Keeps an array in the graph's layout; returns its name."""
        name = self._name("constant")
        self.constants[name] = np.asarray(array)
        return name

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{what.lower()}_{self._count}"


def to_graph(traced: ClosedJaxpr, image: str) -> tuple[Graph, str]:
    """The graph of a trace with one input and one output.

    Args:
      traced: of images `[B, H, W, C]`, of which the graph then takes any number.
      image: the name of the input, which is `[B, H, W, C]` in the graph as well.

    Returns:
      The graph and the name of its result.

    Raises:
      InputError: an operation that is not in the table; names it.
    """
    graph = Graph()
    start = graph.add("Transpose", image, rank=4, perm=TO_CHANNELS_FIRST)
    (result,) = _follow(graph, traced.jaxpr, traced.consts, [start])
    if not isinstance(result, str):
        raise InputError("the network's answer does not depend on the image")
    return graph, result


def _follow(
    graph: Graph, trace: Jaxpr, constants: Sequence[Any], inputs: Sequence[Value]
) -> list[Value]:
    values: dict[Var, Value] = dict(zip(trace.invars, inputs, strict=True))
    known = map(np.asarray, constants)
    values.update(zip(trace.constvars, known, strict=True))

    def value_of(atom: Var | Literal) -> Value:
        return np.asarray(atom.val) if isinstance(atom, Literal) else values[atom]

    for equation in trace.eqns:
        given = [value_of(atom) for atom in equation.invars]
        found = _translate(graph, equation, given)
        values.update(zip(equation.outvars, found, strict=True))
    return [value_of(atom) for atom in trace.outvars]


def _translate(
    graph: Graph, equation: JaxprEqn, given: Sequence[Value]
) -> Sequence[Value]:
    if (call := called(equation)) is not None:
        return _follow(graph, *call, given)
    name = equation.primitive.name
    if not any(isinstance(value, str) for value in given):
        if name == "broadcast_in_dim":
            return [_known_broadcast(equation, given)]
        shapes = map(_shape, equation.invars)
        whole = map(np.broadcast_to, given, shapes)  # see `_known_broadcast`
        found = equation.primitive.bind(*whole, **equation.params)
        several = equation.primitive.multiple_results
        return [np.asarray(array) for array in (found if several else [found])]
    if name not in _OPERATIONS:
        raise _unknown(name)
    return [_OPERATIONS[name](graph, equation, given)]


def _unknown(what: str) -> InputError:
    return InputError(
        f"the network cannot be exported: its operation {what} is not among those that "
        "jaxvision/export/trace.py translates; add it there"
    )


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape


def _operand(graph: Graph, value: Value) -> str:
    """The name of a value, a constant in the graph's layout."""
    if isinstance(value, str):
        return value
    if value.ndim == 4:
        value = value.transpose(TO_CHANNELS_FIRST)
    return graph.constant(value)


def _axis(axis: int, rank: int) -> int:
    """Where an axis of JAX's lies in the graph."""
    return TO_CHANNELS_FIRST.index(axis) if rank == 4 else axis


def _sizes(shape: Shape) -> np.ndarray:
    """A shape for ONNX, which finds out the number of images."""
    return np.array([-1, *shape[1:]], np.int64)


def _reshape(graph: Graph, x: str, before: Shape, after: Shape) -> str:
    """`before` and `after` are JAX's shapes."""
    if tuple(before) == tuple(after):
        return x
    source, shape = graph.reshaped.get(x, ("", ()))
    if tuple(shape) == tuple(after):
        return source
    given = x, before
    if len(before) == 4 and not _same_order(before):
        x = graph.add("Transpose", x, rank=4, perm=TO_CHANNELS_LAST)
    turned = len(after) == 4 and not _same_order(after)
    if len(after) == 4 and not turned:
        after = [after[axis] for axis in TO_CHANNELS_FIRST]
    x = graph.add("Reshape", x, graph.constant(_sizes(after)), rank=len(after))
    if turned:
        x = graph.add("Transpose", x, rank=4, perm=TO_CHANNELS_FIRST)
    graph.reshaped[x] = given
    return x


def _same_order(shape: Shape) -> bool:
    """Whether an image has its values in the same order with its channels first."""
    _, height, width, channels = shape
    return channels == 1 or (height == 1 and width == 1)


# Rows of the table: (graph, equation, inputs) -> the name of the output. At least one
# input is no constant.

Operation = Callable[[Graph, JaxprEqn, Sequence[Value]], str]


def _rank(equation: JaxprEqn) -> int:
    return len(_shape(equation.outvars[0]))


def _elementwise(op: str) -> Operation:
    def translate(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
        names = [_operand(graph, value) for value in given]
        return graph.add(op, *names, rank=_rank(equation))

    return translate


def _by_channel(value: Value) -> np.ndarray | None:
    """A constant as one number `[]`, or one for each channel `[C]`; None: it is no
    such constant."""
    if isinstance(value, str):
        return None
    wide = value.astype(np.float64)
    if value.size and np.all(value == value.flat[0]):
        return wide.reshape(-1)[:1].reshape(())
    return wide.reshape(-1) if value.size == value.shape[-1] else None


def _arithmetic(
    op: str,
    right: Callable[[np.ndarray], tuple[Any, Any]],
    left: Callable[[np.ndarray], tuple[Any, Any]] | None,
) -> Operation:
    """A sum or a product of two.

    Args:
      right: scale and shift, where the constant is the second operand.
      left: where it is the first; None: the result is not affine.
    """

    def translate(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
        x, y = given
        rank = _rank(equation)
        shape = _shape(equation.outvars[0])
        for variable, name, constant, affine in (
            (equation.invars[0], x, _by_channel(y), right),
            (equation.invars[1], y, _by_channel(x), left),
        ):
            if constant is None or affine is None or _shape(variable) != shape:
                continue
            assert isinstance(name, str)
            scale, shift = map(np.float64, affine(constant))
            # All channels, unless one number does for all of them.
            if scale.ndim or shift.ndim:
                scale, shift = (np.broadcast_to(a, shape[-1:]) for a in (scale, shift))
            return graph.add("Affine", name, rank=rank, scale=scale, shift=shift)
        return _elementwise(op)(graph, equation, given)

    return translate


def _max(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    x, least = given
    if isinstance(x, str) and not isinstance(least, str) and not np.any(least):
        return graph.add("Relu", x, rank=_rank(equation))
    return _elementwise("Max")(graph, equation, given)


def _min(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    x, most = given
    if isinstance(x, str) and not isinstance(most, str) and most.ndim == 0:
        return graph.add("Clip", x, "", graph.constant(most), rank=_rank(equation))
    return _elementwise("Min")(graph, equation, given)


def _clamp(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    least, x, most = (_operand(graph, value) for value in given)
    return graph.add("Clip", x, least, most, rank=_rank(equation))


def _same(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    (x,) = given
    assert isinstance(x, str)
    return x


def _convert(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    (x,) = given
    before, after = equation.invars[0].aval, equation.params["new_dtype"]
    if before.dtype == after:  # pyright: ignore[reportAttributeAccessIssue]
        return _same(graph, equation, given)
    if after != np.float32:
        raise _unknown(f"convert_element_type to {after}")
    assert isinstance(x, str)
    return graph.add("Cast", x, rank=_rank(equation), to=1)


def _select(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    which, otherwise, chosen = (_operand(graph, value) for value in given)
    return graph.add("Where", which, chosen, otherwise, rank=_rank(equation))


def _rsqrt(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    root = _elementwise("Sqrt")(graph, equation, given)
    return graph.add("Reciprocal", root, rank=_rank(equation))


def _square(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    return _elementwise("Mul")(graph, equation, [given[0], given[0]])


def _integer_pow(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    exponent = np.float32(equation.params["y"])
    return _elementwise("Pow")(graph, equation, [given[0], np.asarray(exponent)])


def _conv(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    x, kernel = given
    params = equation.params
    numbers = params["dimension_numbers"]
    last = TO_CHANNELS_FIRST
    if not isinstance(x, str) or isinstance(kernel, str):
        raise _unknown("conv_general_dilated with a kernel that is no constant")
    if numbers.lhs_spec != last or numbers.out_spec != last:
        raise _unknown(f"conv_general_dilated of {numbers}")
    if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise _unknown("conv_general_dilated with gaps between the pixels")
    bias = np.zeros(kernel.shape[numbers.rhs_spec[0]])
    return graph.add(
        "Conv",
        x,
        graph.constant(kernel.transpose(numbers.rhs_spec)),
        graph.constant(bias),
        rank=4,
        strides=params["window_strides"],
        pads=_pads(params["padding"]),
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
    )


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    """ONNX's: what comes before on all axes, then what comes after."""
    return [low for low, _ in padding] + [high for _, high in padding]


def _window(equation: JaxprEqn) -> dict[str, Any]:
    """Attributes of a pool."""
    params = equation.params
    size, strides = params["window_dimensions"], params["window_strides"]
    padding = params["padding"]
    dilated = {*params["base_dilation"], *params["window_dilation"]} != {1}
    if dilated or len(size) != 4 or (size[0], size[3]) != (1, 1):
        raise _unknown(f"{equation.primitive.name} of a window {size}")
    return {
        "kernel_shape": size[1:3],
        "strides": strides[1:3],
        "pads": _pads(padding[1:3]),
    }


def _max_pool(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    return graph.add("MaxPool", *map(str, given), rank=4, **_window(equation))


def _sum_pool(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    (x,) = given
    assert isinstance(x, str)
    size = equation.params["window_dimensions"]
    if len(size) == 4 and size[:3] == (1, 1, 1):
        return _neighbor_sum(graph, equation, x)
    window = _window(equation)
    mean = graph.add("AveragePool", x, rank=4, count_include_pad=1, **window)
    area = np.float64(np.prod(size))
    return graph.add("Affine", mean, rank=4, scale=area, shift=np.float64(0))


def _neighbor_sum(graph: Graph, equation: JaxprEqn, x: str) -> str:
    """Sums over neighboring channels: a convolution with ones about the diagonal."""
    params = equation.params
    if set(params["window_strides"]) != {1}:
        raise _unknown("reduce_window_sum over channels with a stride")
    before, _ = params["padding"][3]
    channels = np.arange(_shape(equation.invars[0])[3])
    outputs = np.arange(_shape(equation.outvars[0])[3])
    place = channels[None] - outputs[:, None] + before
    near = (place >= 0) & (place < params["window_dimensions"][3])
    kernel = graph.constant(near[:, :, None, None].astype(np.float32))
    return graph.add("Conv", x, kernel, graph.constant(np.zeros(len(outputs))), rank=4)


def _dot(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    x, y = given
    contracted, batched = equation.params["dimension_numbers"]
    usual = tuple(map(tuple, contracted)) == ((1,), (0,)) and _rank(equation) == 2
    if usual and isinstance(x, str) and not isinstance(y, str):
        bias = graph.constant(np.zeros(y.shape[1]))
        return graph.add("Gemm", x, graph.constant(y), bias, rank=2)
    letters = iter(string.ascii_lowercase)
    axes = [[next(letters) for _ in _shape(variable)] for variable in equation.invars]
    for sides in (contracted, batched):
        for mine, theirs in zip(*sides, strict=True):
            axes[1][theirs] = axes[0][mine]
    result = [axes[0][axis] for axis in batched[0]]
    for side in (0, 1):
        used = {*contracted[side], *batched[side]}
        result += [a for axis, a in enumerate(axes[side]) if axis not in used]
    terms = [_in_graph_order(names) for names in (*axes, result)]
    names = [_operand(graph, value) for value in given]
    rule = f"{terms[0]},{terms[1]}->{terms[2]}"
    return graph.add("Einsum", *names, rank=len(result), equation=rule)


def _in_graph_order(names: Sequence[str]) -> str:
    order = TO_CHANNELS_FIRST if len(names) == 4 else range(len(names))
    return "".join(names[axis] for axis in order)


def _reduce_sum(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    (x,) = given
    assert isinstance(x, str)
    shape, axes = _shape(equation.invars[0]), equation.params["axes"]
    rank = len(shape)
    if rank == 4 and tuple(axes) == (1, 2):
        # A mean is what runtimes are made for; whoever wanted one divides.
        x = graph.add("GlobalAveragePool", x, rank=4)
        count = np.float64(shape[1] * shape[2])
        x = graph.add("Affine", x, rank=4, scale=count, shift=np.float64(0))
    else:
        places = graph.constant(np.array([_axis(a, rank) for a in axes], np.int64))
        x = graph.add("ReduceSum", x, places, rank=rank, keepdims=1)
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    return _reshape(graph, x, kept, _shape(equation.outvars[0]))


def _reshaped(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    before, after = _shape(equation.invars[0]), _shape(equation.outvars[0])
    return _reshape(graph, _same(graph, equation, given), before, after)


def _ranked(equation: JaxprEqn, before: Shape) -> list[int]:
    """The shape of what is broadcast, once it has the rank of the result."""
    ranked = [1] * len(equation.params["shape"])
    for axis, size in zip(equation.params["broadcast_dimensions"], before, strict=True):
        ranked[axis] = size
    return ranked


def _broadcast(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    before, after = _shape(equation.invars[0]), equation.params["shape"]
    ranked = _ranked(equation, before)
    x = _reshape(graph, _same(graph, equation, given), before, ranked)
    if tuple(ranked) == tuple(after):
        return x
    if ranked[0] != after[0]:
        raise _unknown("broadcast_in_dim over the images")
    order = TO_CHANNELS_FIRST if len(after) == 4 else range(len(after))
    # However many images there are: 1 leaves them.
    sizes = [1, *(after[axis] for axis in order[1:])]
    shape = graph.constant(np.array(sizes, np.int64))
    return graph.add("Expand", x, shape, rank=len(after))


def _known_broadcast(equation: JaxprEqn, given: Sequence[Value]) -> np.ndarray:
    """A constant that is as large as it must be: ONNX broadcasts the rest."""
    (x, *_) = given
    assert not isinstance(x, str)
    return x.reshape(_ranked(equation, x.shape))


def _slice(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    (x,) = given
    params, shape = equation.params, _shape(equation.invars[0])
    strides = params["strides"] or (1,) * len(shape)
    cuts = [
        (axis, start, stop, stride)
        for axis, (start, stop, stride) in enumerate(
            zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        )
        if (start, stop, stride) != (0, shape[axis], 1)
    ]
    return _cut(graph, str(x), len(shape), cuts) if cuts else str(x)


def _cut(
    graph: Graph, x: str, rank: int, cuts: Sequence[tuple[int, int, int, int]]
) -> str:
    """Takes (axis, start, stop, stride) of each of some axes."""
    axes, starts, stops, strides = zip(*cuts, strict=True)
    rows = (starts, stops, [_axis(axis, rank) for axis in axes], strides)
    names = [graph.constant(np.array(row, np.int64)) for row in rows]
    return graph.add("Slice", x, *names, rank=rank)


def _reverse(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    (x,) = given
    lowest = np.iinfo(np.int64).min
    cuts = [(axis, -1, lowest, -1) for axis in equation.params["dimensions"]]
    return _cut(graph, str(x), _rank(equation), cuts)


def _concatenate(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    names = [_operand(graph, value) for value in given]
    rank = _rank(equation)
    axis = _axis(equation.params["dimension"], rank)
    return graph.add("Concat", *names, rank=rank, axis=axis)


def _stack(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    rank, axis = _rank(equation), equation.params["axis"]
    names = []
    for variable, value in zip(equation.invars, given, strict=True):
        before = _shape(variable)
        after = (*before[:axis], 1, *before[axis:])
        names.append(_reshape(graph, _operand(graph, value), before, after))
    return graph.add("Concat", *names, rank=rank, axis=_axis(axis, rank))


def _pad(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    x, border = given
    padding = equation.params["padding_config"]
    if isinstance(border, str) or any(
        min(low, high, -gap) < 0 for low, high, gap in padding
    ):
        raise _unknown("pad that cuts or spreads")
    sides = [(low, high) for low, high, _ in padding]
    if len(sides) == 4:
        sides = [sides[axis] for axis in TO_CHANNELS_FIRST]
    pads = graph.constant(np.array(_pads(sides), np.int64))
    return graph.add("Pad", str(x), pads, graph.constant(border), rank=_rank(equation))


def _gather(graph: Graph, equation: JaxprEqn, given: Sequence[Value]) -> str:
    """Known places of each example: `x[:, rows, columns]`."""
    x, places = given
    numbers, shape = equation.params["dimension_numbers"], _shape(equation.invars[0])
    rest = tuple(range(1, len(shape)))
    if (
        isinstance(places, str)
        or not isinstance(x, str)
        or numbers.offset_dims != (0,)
        or numbers.collapsed_slice_dims != rest
        or numbers.start_index_map != rest
    ):
        raise _unknown("gather of other than known places of each example")
    flat = np.ravel_multi_index(np.moveaxis(places, -1, 0), shape[1:])
    x = _reshape(graph, x, shape, (shape[0], int(np.prod(shape[1:]))))
    indices = graph.constant(flat.astype(np.int64))
    return graph.add("Gather", x, indices, rank=_rank(equation), axis=1)


_OPERATIONS: dict[str, Operation] = {
    "abs": _elementwise("Abs"),
    "add": _arithmetic("Add", lambda c: (1, c), lambda c: (1, c)),
    "broadcast_in_dim": _broadcast,
    "clamp": _clamp,
    "concatenate": _concatenate,
    "conv_general_dilated": _conv,
    "convert_element_type": _convert,
    "div": _arithmetic("Div", lambda c: (1 / c, 0), None),
    "dot_general": _dot,
    "exp": _elementwise("Exp"),
    "gather": _gather,
    "gt": _elementwise("Greater"),
    "integer_pow": _integer_pow,
    "log": _elementwise("Log"),
    "logistic": _elementwise("Sigmoid"),
    "max": _max,
    "min": _min,
    "mul": _arithmetic("Mul", lambda c: (c, 0), lambda c: (c, 0)),
    "neg": _elementwise("Neg"),
    "pad": _pad,
    "pow": _elementwise("Pow"),
    "reduce_sum": _reduce_sum,
    "reduce_window_max": _max_pool,
    "reduce_window_sum": _sum_pool,
    "reshape": _reshaped,
    "rev": _reverse,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "slice": _slice,
    "sqrt": _elementwise("Sqrt"),
    "square": _square,
    "stack": _stack,
    "sub": _arithmetic("Sub", lambda c: (1, -c), lambda c: (-1, c)),
    "tanh": _elementwise("Tanh"),
}
"""JAX's operation -> how it is written."""
