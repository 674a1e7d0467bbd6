"""Fewer operations with the same result.

Scales and shifts of channels go into the convolution or dense layer before them, and
into each other; batch norm is gone then. Sums are float64 until the end.
"""

from collections import Counter

import numpy as np

from jaxvision.export.trace import Graph, Node


def fold(graph: Graph, result: str) -> str:
    """Shortens a graph in place.

    Args:
      result: the name of the graph's result.

    Returns:
      The name that the result has now.
    """
    _drop_unused(graph, result)
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses[result] += 1
    kept: list[Node] = []
    alone: dict[str, Node] = {}  # what gives a result that is read once
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        node.inputs = [renamed.get(name, name) for name in node.inputs]
        earlier = alone.pop(node.inputs[0], None)
        if earlier is not None and _absorb(graph, earlier, node):
            renamed[node.output] = earlier.output
        else:
            kept.append(node)
            earlier = node
        if uses[node.output] == 1:
            alone[earlier.output] = earlier
    graph.nodes = kept
    return renamed.get(result, result)


def _drop_unused(graph: Graph, result: str) -> None:
    wanted, kept = {result}, []
    for node in reversed(graph.nodes):
        if node.output in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    graph.nodes = kept[::-1]


def _absorb(graph: Graph, earlier: Node, node: Node) -> bool:
    """Whether an operation does now what the next one did, too."""
    match earlier.op, node.op:
        case "Affine", "Affine":
            scale, shift = node.attributes["scale"], node.attributes["shift"]
            own = earlier.attributes
            own["shift"] = own["shift"] * scale + shift
            own["scale"] = own["scale"] * scale
        case "Conv" | "Gemm", "Affine":
            scale, shift = node.attributes["scale"], node.attributes["shift"]
            _, kernel, bias = earlier.inputs
            # Outputs come first in a convolution's kernel and last in a dense one.
            outputs = (-1, 1, 1, 1) if earlier.op == "Conv" else (1, -1)
            if np.any(scale != 1):
                wide = graph.constants[kernel].astype(np.float64)
                graph.constants[kernel] = wide * scale.reshape(outputs)
            graph.constants[bias] = graph.constants[bias] * scale + shift
        case "Relu", "Clip" if not node.inputs[1]:
            earlier.op = "Clip"
            zero = graph.constant(np.float32(0))
            earlier.inputs = [earlier.inputs[0], zero, node.inputs[2]]
        case _:
            return False
    return True
