"""A network of ours as a torch module: the same layers, the same weights.

Our network is traced once; what its layers are to each other is read from the trace,
and every layer that has parameters or slides a window becomes the `torch.nn` module
that a torch user would have taken. So the twin of a new network needs no code, unless
it has a layer of a new kind.
"""

import operator
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen as flax_nn
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var
from torch import fx, nn

from jaxvision import ops
from jaxvision.models import Network, layers
from jaxvision.models.backbone import intercept_modules
from jaxvision.models.layers import explicit_pads
from jaxvision.traces import called, mark, mark_of

Build = Callable[
    [flax_nn.Module, dict[str, np.ndarray], tuple[int, ...], tuple[int, ...] | None],
    nn.Module,
]
"""(our layer, its variables, shape of its input, the shape that was flattened into
that) -> torch's layer."""


def torch_twin(
    model: Network, variables: dict[str, Any], image_shape: tuple[int, int, int]
) -> nn.Module:
    """The network in torch: `[B, C, H, W]` -> `[B, num_classes]` logits.

    Args:
      model: its dropout rates are 0: no two frameworks drop the same.
      variables: `params` and `batch_stats`, which are copied.
      image_shape: (H, W, C) of one image.

    Raises:
      NotImplementedError: a layer or operation has no counterpart here yet.
    """
    marked: list[flax_nn.Module] = []
    image = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    with intercept_modules(partial(_mark, marked)), ops.lax_only():
        traced = jax.make_jaxpr(lambda x: model.apply(variables, x, train=False))(image)
    builder = _Builder(marked, variables)
    entry = builder.graph.placeholder("x")
    builder.graph.output(builder.follow(traced.jaxpr, [entry], traced.jaxpr.outvars[0]))
    builder.save_memory()
    return fx.GraphModule(builder.root, builder.graph)


def channels_first(images: np.ndarray) -> torch.Tensor:
    """`[B, H, W, C]` -> `[B, C, H, W]`, contiguous."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _mark(
    marked: list[flax_nn.Module],
    module: flax_nn.Module,
    call: Callable[..., Any],
    *inputs: Any,
) -> Any:
    """Names what goes into and comes out of each layer that torch has too."""
    if not isinstance(module, tuple(_LAYERS)):
        return call(*inputs)
    (x,) = inputs
    number = len(marked)
    marked.append(module)
    return mark(call(mark(x, f"into {number}")), f"of {number}")


class _Builder:
    """Follows a trace from its result back to the image."""

    def __init__(self, marked: list[flax_nn.Module], variables: dict[str, Any]) -> None:
        self.root, self.graph = nn.Module(), fx.Graph()
        self._marked, self._variables = marked, variables

    def follow(self, jaxpr: Jaxpr, inputs: list[Any], wanted: Any) -> Any:
        """The node of one of the trace's values, and of all that it needs.

        Args:
          jaxpr: the trace.
          inputs: node or number of each of its inputs.
        """
        nodes = dict(zip(jaxpr.invars, inputs, strict=True))
        makers = {v: equation for equation in jaxpr.eqns for v in equation.outvars}
        entered = {
            mark_of(equation): equation.invars[0]
            for equation in jaxpr.eqns
            if mark_of(equation) is not None
        }

        def node_of(variable: Any) -> Any:
            if isinstance(variable, Literal):
                return float(variable.val)
            if variable not in nodes:
                nodes[variable] = make(makers[variable], variable)
            return nodes[variable]

        def make(equation: JaxprEqn, variable: Var) -> Any:
            name = mark_of(equation) or ""
            if name.startswith("of "):
                number = int(name.split()[1])
                x = entered[f"into {number}"]
                return self._layer(self._marked[number], node_of(x), _shape(x))
            args = [node_of(v) for v in equation.invars]
            if (call := called(equation)) is not None:
                inner, _ = call
                place = equation.outvars.index(variable)
                return self.follow(inner, args, inner.outvars[place])
            return self._operation(equation, args)

        return node_of(wanted)

    def save_memory(self) -> None:
        """Rectifiers overwrite what nobody else reads, as torchvision's do."""
        for node in self.graph.nodes:
            if node.op == "call_module":
                module = self.root.get_submodule(node.target)
                if isinstance(module, nn.ReLU | nn.ReLU6):
                    (x,) = node.args
                    module.inplace = len(x.users) == 1 and x.op != "placeholder"

    def _layer(
        self, module: flax_nn.Module, x: fx.Node, shape: tuple[int, ...]
    ) -> fx.Node:
        own = {
            name: np.asarray(value)
            for tree in self._variables.values()
            for name, value in reduce(_child, module.path, tree).items()
            if not isinstance(value, dict)
        }
        flattened = x.meta.get("flattened")
        build = next(_LAYERS[k] for k in type(module).__mro__ if k in _LAYERS)
        target = "_".join(module.path)
        if hasattr(self.root, target):  # without a name, or called twice
            target += f"_{len(self.graph.nodes)}"
        self.root.add_module(target, build(module, own, shape, flattened))
        node = self.graph.call_module(target, (x,))
        if not isinstance(module, layers.Dense | flax_nn.Dense):
            node.meta["flattened"] = flattened
        return node

    def _operation(self, equation: JaxprEqn, args: list[Any]) -> Any:
        name = equation.primitive.name
        before = _shape(equation.invars[0])
        after = _shape(equation.outvars[0])
        if name in ("convert_element_type", "copy", "mark", "stop_gradient"):
            return args[0]
        if name in _ARITHMETIC:
            return self.graph.call_function(_ARITHMETIC[name], tuple(args))
        if name == "reduce_sum":
            axes = [_axis(axis, len(before)) for axis in equation.params["axes"]]
            return self.graph.call_function(torch.sum, (args[0], axes))
        if name == "reshape" and len(after) == 2 and after[0] == before[0]:
            node = self.graph.call_function(torch.flatten, (args[0], 1))
            node.meta["flattened"] = before[1:] if len(before) == 4 else None
            return node
        raise NotImplementedError(
            f"{name} of {before} has no counterpart in torch here"
        )


def _shape(value: Literal | Var) -> tuple[int, ...]:
    aval: Any = value.aval  # an array's, which alone has a shape
    return aval.shape


_ARITHMETIC = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
}


def _axis(axis: int, ndim: int) -> int:
    """Where an axis of ours lies in torch, with channels first."""
    return {1: 2, 2: 3, 3: 1}.get(axis, axis) if ndim == 4 else axis


def _child(tree: dict[str, Any], name: str) -> dict[str, Any]:
    return tree.get(name, {})


def _conv(module: Any, own: dict, shape: tuple, flattened: Any) -> nn.Module:
    kernel = own["kernel"]
    if getattr(module, "weight_norm", False):
        raise NotImplementedError("weight norm has no counterpart here")
    depthwise = isinstance(module, layers.DepthwiseConv)
    pads = explicit_pads(shape[1:3], module.kernel_size, module.stride, module.padding)
    conv = nn.Conv2d(
        shape[-1],
        kernel.shape[-1],
        module.kernel_size,
        module.stride,
        groups=shape[-1] if depthwise else 1,
        bias="bias" in own,
    )
    _copy(conv.weight, kernel.transpose(3, 2, 0, 1))
    if "bias" in own:
        _copy(conv.bias, own["bias"])
    return _padded(conv, pads, 0.0)


def _dense(module: Any, own: dict, shape: tuple, flattened: Any) -> nn.Module:
    kernel = own["kernel"]
    dense = nn.Linear(*kernel.shape)
    if flattened is not None:
        # Images are flattened with their channels first there.
        order = np.arange(len(kernel)).reshape(flattened).transpose(2, 0, 1).ravel()
        kernel = kernel[order]
    _copy(dense.weight, kernel.T)
    _copy(dense.bias, own["bias"])
    return dense


def _batch_norm(module: Any, own: dict, shape: tuple, flattened: Any) -> nn.Module:
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    norm = kind(shape[-1], eps=module.epsilon, momentum=1 - module.momentum)
    _copy(norm.weight, own["scale"])
    _copy(norm.bias, own["bias"])
    _copy(norm.running_mean, own["mean"])
    _copy(norm.running_var, own["var"])
    return norm


def _max_pool(module: Any, own: dict, shape: tuple, flattened: Any) -> nn.Module:
    pads = explicit_pads(shape[1:3], module.kernel_size, module.stride, module.padding)
    pool = nn.MaxPool2d(module.kernel_size, module.stride)
    if module.border == -np.inf:
        return _padded(pool, pads, -np.inf)
    (top, bottom), (left, right) = pads
    border = nn.ConstantPad2d((left, right, top, bottom), module.border)
    return nn.Sequential(border, pool)


def _avg_pool(module: Any, own: dict, shape: tuple, flattened: Any) -> nn.Module:
    size, stride = module.kernel_size, module.stride
    pads = explicit_pads(shape[1:3], size, stride, module.padding)
    if len({side for axis in pads for side in axis}) > 1:
        raise NotImplementedError("torch cannot leave an uneven border out of a mean")
    return nn.AvgPool2d(size, stride, pads[0][0], count_include_pad=False)


def _local_response_norm(
    module: Any, own: dict, shape: tuple, flattened: Any
) -> nn.Module:
    return nn.LocalResponseNorm(module.size, module.alpha, module.beta, module.k)


def _prelu(module: Any, own: dict, shape: tuple, flattened: Any) -> nn.Module:
    rectifier = nn.PReLU(shape[-1])
    _copy(rectifier.weight, own["slope"])
    return rectifier


_LAYERS: dict[type, Build] = {
    layers.Conv: _conv,
    layers.DepthwiseConv: _conv,
    layers.Dense: _dense,
    flax_nn.Dense: _dense,
    layers.BatchNorm: _batch_norm,
    layers.MaxPool: _max_pool,
    layers.AvgPool: _avg_pool,
    layers.LocalResponseNorm: _local_response_norm,
    layers.PReLU: _prelu,
    layers.ReLU: lambda *_: nn.ReLU(),
    layers.ReLU6: lambda *_: nn.ReLU6(),
}


def _padded(
    layer: nn.Conv2d | nn.MaxPool2d, pads: layers.Pads, border: float
) -> nn.Module:
    """The layer with its border: its own where all sides are alike, else put before."""
    (top, bottom), (left, right) = pads
    if top == bottom and left == right:
        layer.padding = (top, left)
        if isinstance(layer, nn.Conv2d):
            layer._reversed_padding_repeated_twice = [left, left, top, top]
        return layer
    return nn.Sequential(nn.ConstantPad2d((left, right, top, bottom), border), layer)


def _copy(tensor: torch.Tensor | None, array: np.ndarray) -> None:
    assert tensor is not None  # the layer was made with it
    tensor.data = torch.from_numpy(np.array(array, np.float32, order="C"))
