"""Which tensor of a foreign file becomes which parameter, and how it is turned.

torch keeps kernels as output, input, height, width, and matrices as output, input;
here they are height, width, input, output, and input, output.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from jaxvision.models.efficientnet import LITE0
from jaxvision.pretrained.convert import Entry, Table, Transform


def as_is(tensor: np.ndarray) -> np.ndarray:
    return tensor


def conv_kernel(tensor: np.ndarray) -> np.ndarray:
    """`[O, I, H, W]` -> `[H, W, I, O]`; depthwise kernels (I = 1) as well."""
    return tensor.transpose(2, 3, 1, 0)


def dense_kernel(tensor: np.ndarray) -> np.ndarray:
    """`[O, I]` -> `[I, O]`."""
    rows, columns = tensor.shape
    return tensor.reshape(rows, columns).T


def flattened_kernel(
    tensor: np.ndarray, *, channels: int, height: int, width: int
) -> np.ndarray:
    """`[O, C * H * W]` -> `[H * W * C, O]`: the channels come last in our pictures."""
    rows = tensor.shape[0]
    kernel = tensor.reshape(rows, channels, height, width).transpose(2, 3, 1, 0)
    return kernel.reshape(height * width * channels, rows)


def _conv(source: str, target: str, *, bias: bool) -> list[Entry]:
    kernel = Entry(f"{source}.weight", f"params/{target}/kernel", conv_kernel)
    return [kernel, *([_bias(source, target)] if bias else [])]


def _dense(source: str, target: str, kernel: Transform = dense_kernel) -> list[Entry]:
    return [
        Entry(f"{source}.weight", f"params/{target}/kernel", kernel),
        _bias(source, target),
    ]


def _bias(source: str, target: str) -> Entry:
    return Entry(f"{source}.bias", f"params/{target}/bias", as_is)


def _norm(source: str, target: str) -> list[Entry]:
    return [
        Entry(f"{source}.weight", f"params/{target}/scale", as_is),
        Entry(f"{source}.bias", f"params/{target}/bias", as_is),
        Entry(f"{source}.running_mean", f"batch_stats/{target}/mean", as_is),
        Entry(f"{source}.running_var", f"batch_stats/{target}/var", as_is),
    ]


def _alexnet() -> Table:
    fc6 = partial(flattened_kernel, channels=256, height=6, width=6)
    return Table(
        (
            *_conv("features.0", "backbone/conv1", bias=True),
            *_conv("features.3", "backbone/conv2", bias=True),
            *_conv("features.6", "backbone/conv3", bias=True),
            *_conv("features.8", "backbone/conv4", bias=True),
            *_conv("features.10", "backbone/conv5", bias=True),
            *_dense("classifier.1", "backbone/fc6", fc6),
            *_dense("classifier.4", "backbone/fc7"),
            *_dense("classifier.6", "head/logits"),
        )
    )


def _efficientnet_lite0() -> Table:
    entries = [
        *_conv("_conv_stem", "backbone/stem_conv", bias=False),
        *_norm("_bn0", "backbone/stem_bn"),
    ]
    blocks = [
        (f"backbone/block{number}{'abcdefgh'[repeat]}", stage.expansion)
        for number, stage in enumerate(LITE0, start=1)
        for repeat in range(stage.repeats)
    ]
    for i, (block, expansion) in enumerate(blocks):
        source = f"_blocks.{i}"
        if expansion != 1:
            entries += _conv(
                f"{source}._expand_conv", f"{block}/expand_conv", bias=False
            )
            entries += _norm(f"{source}._bn0", f"{block}/expand_bn")
        depthwise = f"{block}/depthwise_conv"
        entries += _conv(f"{source}._depthwise_conv", depthwise, bias=False)
        entries += _norm(f"{source}._bn1", f"{block}/depthwise_bn")
        entries += _conv(f"{source}._project_conv", f"{block}/project_conv", bias=False)
        entries += _norm(f"{source}._bn2", f"{block}/project_bn")
    entries += _conv("_conv_head", "backbone/conv_head", bias=False)
    entries += _norm("_bn1", "backbone/bn_head")
    entries += _dense("_fc", "head/logits")
    # torch's count of training batches, 0 in every one of them.
    return Table(tuple(entries), ignored=(".num_batches_tracked",))


TABLES: dict[str, Callable[[], Table]] = {
    "alexnet": _alexnet,
    "efficientnet_lite0": _efficientnet_lite0,
}
