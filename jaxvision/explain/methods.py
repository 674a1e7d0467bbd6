"""Ways to explain a network's answer.

network = TrainedNetwork.of(load_classifier("checkpoints/part2_finetune/TIME"))
maps = guided_backprop(network, images, classes)  # [B, H, W, C] float32
images.gray(maps)                                 # [B, H, W, 3] uint8
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

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
from jaxvision.typing import Progress

__all__ = [
    "METHODS",
    "Method",
    "TrainedNetwork",
    "allowed_methods",
    "class_activation",
    "completeness_gap",
    "explain_batches",
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

BATCH = 4
"""Images that `explain_batches` explains at once."""


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


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """What in an image speaks for a class.

    Attributes:
      label: name of the class.
      method: name in `METHODS`.
      image: uint8 `[H, W, C]`, as the network sees it.
      map: `[H, W]` or `[H, W, C]` float32; what its values are, the method says.
    """

    label: str
    method: str
    image: np.ndarray
    map: np.ndarray

    @functools.cached_property
    def overlay(self) -> np.ndarray:
        """uint8 `[H, W, 3]`: the image in pale gray, and a glow where the map is
        strong, see `jaxvision.explain.images.overlay`."""
        # Imported here: it loads Matplotlib.
        from jaxvision.explain.images import overlay

        return overlay(self.map[None], self.image[None])[0]


def allowed_methods(network: TrainedNetwork) -> list[str]:
    """The names of the methods that the network has the layers for."""
    without: set[str] = set()
    if network.trace.last_convolution is None:
        without |= {"grad_cam", "guided_grad_cam"}
    if not network.trace.rectifiers:
        without |= {"guided_backprop", "guided_grad_cam"}
    return [name for name in METHODS if name not in without]


def explain_batches(
    network: TrainedNetwork,
    method: str,
    images: np.ndarray,
    classes: Sequence[int],
    *,
    batch_size: int = BATCH,
    progress: Progress | None = None,
    **options: str | int,
) -> np.ndarray:
    """Explains any number of images, a batch at a time.

    Args:
      network: any.
      method: name in `METHODS`.
      images: uint8 `[N, H, W, C]`.
      classes: `[N]`, one an image.
      batch_size: images at once; the last batch is filled up.
      progress: told (images done, images in all).
      **options: of the method.

    Returns:
      `[N, H, W, C]` or `[N, H, W]` float32.

    Raises:
      InputError: images or classes are not the network's, or what the method says.
    """
    explain = find_method(method).explain
    maps: list[np.ndarray] = []
    for start in range(0, len(images), batch_size):
        # Batches of one size: another would be compiled anew.
        chosen = np.arange(start, start + batch_size) % len(images)
        found = explain(network, images[chosen], np.asarray(classes)[chosen], **options)
        maps.append(np.asarray(found)[: len(images) - start])
        if progress is not None:
            progress(min(start + batch_size, len(images)), len(images))
    return np.concatenate(maps)
