"""What a network sees: which pixels a decision rests on, and what units look for.

network = TrainedNetwork.of(load_classifier("checkpoints/part2_finetune/TIME"))
maps = guided_backprop(network, images, classes)  # [B, H, W, C] float32
images.gray(maps)                                 # [B, H, W, 3] uint8
"""

import dataclasses
from collections.abc import Callable

import jax

from jaxvision.errors import InputError
from jaxvision.explain.cam import class_activation, grad_cam, guided_grad_cam
from jaxvision.explain.gradients import gradient, gradient_times_input, smoothgrad
from jaxvision.explain.guided import guided_backprop, guided_gradients
from jaxvision.explain.integrated import (
    completeness_gap,
    integrated_gradients,
    logit_difference,
)
from jaxvision.explain.network import TrainedNetwork
from jaxvision.explain.occlusion import occlusion

__all__ = [
    "METHODS",
    "Method",
    "TrainedNetwork",
    "class_activation",
    "completeness_gap",
    "find_method",
    "grad_cam",
    "gradient",
    "gradient_times_input",
    "guided_backprop",
    "guided_grad_cam",
    "guided_gradients",
    "integrated_gradients",
    "logit_difference",
    "occlusion",
    "smoothgrad",
]


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to explain a network's answer.

    name: for people.
    explain: (network, images, classes) -> maps `[B, H, W, C]` or `[B, H, W]`.
    about: what a map shows, a sentence.
    """

    name: str
    explain: Callable[..., jax.Array]
    about: str


METHODS = {
    "gradient": Method(
        "gradient",
        gradient,
        "How the class's logit changes with each value of the image.",
    ),
    "gradient_times_input": Method(
        "gradient × input",
        gradient_times_input,
        "The gradient times the value itself.",
    ),
    "guided_backprop": Method(
        "guided backpropagation",
        guided_backprop,
        "The gradient, without what would lower the logit at any rectifier.",
    ),
    "smoothgrad": Method(
        "SmoothGrad",
        smoothgrad,
        "The mean gradient of noisy copies of the image.",
    ),
    "integrated_gradients": Method(
        "integrated gradients",
        integrated_gradients,
        "Each value's part in the logit, from a black image to this one.",
    ),
    "grad_cam": Method(
        "Grad-CAM",
        grad_cam,
        "Where the last convolution finds what speaks for the class.",
    ),
    "guided_grad_cam": Method(
        "guided Grad-CAM",
        guided_grad_cam,
        "Guided backpropagation where Grad-CAM looks.",
    ),
    "occlusion": Method(
        "occlusion",
        occlusion,
        "By how much the logit falls when a square is hidden by gray.",
    ),
}
"""Every method by the name that the command line knows."""


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
      InputError: there is none; the message lists those there are.
    """
    if name not in METHODS:
        raise InputError(f"no method {name!r}; there are: {', '.join(METHODS)}")
    return METHODS[name]
