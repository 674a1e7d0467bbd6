"""The original implementations in torch, to compare answers with."""

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from jaxvision.pretrained import SOURCES
from jaxvision.pretrained.fetch import fetch


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


class VGG19(nn.Module):
    """torchvision/models/vgg.py with its configuration E, its modules in its order."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for features, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
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


def vgg19(tensors: dict[str, np.ndarray]) -> VGG19:
    """In evaluation mode, with these weights."""
    return _with_weights(VGG19, tensors)


def _with_weights(kind: type[nn.Module], tensors: dict[str, np.ndarray]) -> nn.Module:
    with torch.device("meta"):  # no time for initial values
        model = kind()
    weights = {name: torch.from_numpy(array) for name, array in tensors.items()}
    model.load_state_dict(weights, assign=True)
    return model.eval()


def efficientnet_lite0() -> nn.Module:
    """In evaluation mode, with the published weights."""
    model = EfficientNet.from_name("efficientnet-lite0")
    file = fetch(SOURCES["efficientnet_lite0"])
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


def channels_first(images: np.ndarray) -> torch.Tensor:
    """`[B, H, W, C]` -> `[B, C, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def answer(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """What the model gives for `[B, H, W, C]` float32."""
    with torch.no_grad():
        return model(channels_first(images)).numpy()
