"""Published weights: where they come from, reading them safely, converting them.

    pretrained = load("efficientnet_lite0")
    variables, report = fit_into(pretrained.variables, model.init(key, x, train=False))

Importing this imports no JAX; the functions do when they need it.
"""

from jaxvision.pretrained.convert import (
    Report,
    check_has_layers,
    fit_into,
    fresh_layers,
)
from jaxvision.pretrained.imagenet import imagenet_classes
from jaxvision.pretrained.sources import SOURCES, Source, find_source
from jaxvision.pretrained.weights import Choice, Pretrained, choose_backbone, load
from jaxvision.storage import cache_folder

__all__ = [
    "SOURCES",
    "Choice",
    "Pretrained",
    "Report",
    "Source",
    "cache_folder",
    "check_has_layers",
    "choose_backbone",
    "find_source",
    "fit_into",
    "fresh_layers",
    "imagenet_classes",
    "load",
]
