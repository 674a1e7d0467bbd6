"""Guided backpropagation and Grad-CAM are those of the original networks with hooks.

Both sides compute in float64. In float32 the last digits decide now and then on which
side of a rectifier's kink a value lies, and a gradient that passes there or does not
differs by more than rounding: between torch's own float32 and float64 by up to 3 % of
the largest value in one pixel of an image.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import resized
from drawn_inputs import alexnet_state_dict

from jaxvision.explain.methods import (
    TrainedNetwork,
    class_activation,
    grad_cam,
    gradient,
    guided_backprop,
    guided_grad_cam,
)
from jaxvision.models import create_model
from jaxvision.pretrained import SOURCES
from jaxvision.pretrained.convert import abstract_variables, convert
from jaxvision.pretrained.golden import drawn_image
from jaxvision.pretrained.tables import TABLES

torch = pytest.importorskip("torch")
pytest.importorskip("efficientnet_lite_pytorch")
from torch_references import (  # noqa: E402
    alexnet,
    answer,
    channels_first,
    efficientnet_lite,
)

WORST = 1e-4
"""Difference that is allowed, as a share of the map's largest value."""


def _images(size: int) -> np.ndarray:
    image = drawn_image(size)
    return np.stack([image, image[::-1, :, ::-1]])


def _alexnet() -> tuple[TrainedNetwork, "torch.nn.Module", "torch.nn.Module"]:
    tensors = alexnet_state_dict()
    template = abstract_variables(SOURCES["alexnet"])
    variables, _ = convert(tensors, TABLES["alexnet"](), template)
    model = create_model("alexnet", 1000)
    network = TrainedNetwork(model, variables, SOURCES["alexnet"].preprocessing)
    reference = alexnet(tensors)
    return network, reference, reference.features[11]  # the ReLU after conv5


@pytest.fixture(params=["alexnet", "efficientnet_lite0"])
def both(request: pytest.FixtureRequest) -> tuple:
    """Our network, the original, and the module whose output Grad-CAM looks at."""
    if request.param == "alexnet":
        return _alexnet()
    reference = efficientnet_lite("efficientnet_lite0")
    # Smaller, but strides divide it: the original pads as for 224 pixels. One ReLU6
    # serves both stem and head; what it gives last is the head's.
    lite0 = resized(request.getfixturevalue("lite0"), 64)
    return lite0, reference, reference._swish


def test_guided_backprop_and_grad_cam_agree_with_torch(both):
    network, reference, module = both
    images = _images(network.preprocessing.size[0])
    model = network.model.clone(
        backbone=network.model.backbone.clone(dtype=jnp.float64)
    )
    # Weights too: batch norm takes the root of its variance as they are.
    variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), network.variables)
    network = dataclasses.replace(network, model=model, variables=variables)
    reference = reference.double()
    inputs = network.preprocessing.normalize(images).astype(np.float64)
    labels = answer(reference, inputs).argmax(-1)
    guided = _torch_guided(reference, inputs, labels)
    maps = _torch_cam(reference, module, inputs, labels)
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[:, None], inputs.shape[1:3], mode="bilinear"
    )[:, 0].numpy()
    with jax.enable_x64(True):
        for ours, theirs in (
            (gradient, _torch_gradient(reference, inputs, labels)),
            (guided_backprop, guided),
            (class_activation, maps),
            (grad_cam, enlarged),
            (guided_grad_cam, guided * enlarged[..., None]),
        ):
            found = np.asarray(ours(network, images, labels))
            assert found.shape == theirs.shape
            assert _apart(found, theirs) <= WORST, ours.__name__


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, as a share of the largest value, of the worse image."""
    pixels = tuple(range(1, ours.ndim))
    difference = np.abs(ours - theirs).max(pixels) / np.abs(theirs).max(pixels)
    return float(difference.max())


def _chosen_logits(
    model: "torch.nn.Module", x: "torch.Tensor", labels: np.ndarray
) -> "torch.Tensor":
    return model(x)[range(len(labels)), labels].sum()


def _torch_gradient(
    model: "torch.nn.Module", inputs: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    x = channels_first(inputs).requires_grad_()
    (by_input,) = torch.autograd.grad(_chosen_logits(model, x, labels), x)
    return by_input.numpy().transpose(0, 2, 3, 1)


def _torch_guided(
    model: "torch.nn.Module", inputs: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    def cut(
        module: "torch.nn.Module",
        grad_input: tuple["torch.Tensor", ...],
        grad_output: tuple["torch.Tensor", ...],
    ) -> tuple["torch.Tensor", ...]:
        return (grad_input[0].clamp(min=0),)

    rectifiers = torch.nn.ReLU | torch.nn.ReLU6
    hooks = [
        module.register_full_backward_hook(cut)
        for module in model.modules()
        if isinstance(module, rectifiers)
    ]
    try:
        return _torch_gradient(model, inputs, labels)
    finally:
        for hook in hooks:
            hook.remove()


def _torch_cam(
    model: "torch.nn.Module",
    module: "torch.nn.Module",
    inputs: np.ndarray,
    labels: np.ndarray,
) -> np.ndarray:
    outputs: list[torch.Tensor] = []
    hook = module.register_forward_hook(lambda *call: outputs.append(call[2]))
    score = _chosen_logits(model, channels_first(inputs), labels)
    hook.remove()
    (by_output,) = torch.autograd.grad(score, outputs[-1])
    weights = by_output.mean((2, 3), keepdim=True)
    return (weights * outputs[-1]).sum(1).clamp(min=0).detach().numpy()
