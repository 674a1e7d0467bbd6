"""Classic convolutional networks and transfer learning for images, in JAX.

    import jaxvision as jv

    data = jv.load_dataset("photos/")  # one subfolder per class, or a CSV
    classifier = jv.finetune(data, "efficientnet_lite0")  # keywords are Recipe fields
    print(classifier.evaluate(data).accuracy)
    print(classifier.predict("a.jpg").label)
    classifier.save("photos-classifier")

Importing the package imports nothing heavy; a name is imported when it is first used.
What is underneath is imported by its own name: `jaxvision.models`, `jaxvision.data`,
`jaxvision.training`, `jaxvision.pretrained`, `jaxvision.transfer`, `jaxvision.explain`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxvision.classifier import (
        Classifier,
        load_classifier,
        load_pretrained_classifier,
    )
    from jaxvision.crossval import cross_validate
    from jaxvision.data.dataset import load_dataset
    from jaxvision.errors import InputError
    from jaxvision.rate_finder import find_learning_rate
    from jaxvision.recipe import finetune, train
    from jaxvision.settings import (
        AugmentConfig,
        DataConfig,
        OptimConfig,
        Recipe,
        ScheduleConfig,
    )
    from jaxvision.transfer import create_model

__all__ = [
    "AugmentConfig",
    "Classifier",
    "DataConfig",
    "InputError",
    "OptimConfig",
    "Recipe",
    "ScheduleConfig",
    "create_model",
    "cross_validate",
    "find_learning_rate",
    "finetune",
    "load_classifier",
    "load_dataset",
    "load_pretrained_classifier",
    "train",
]

__version__ = "0.1.0"

_MODULES = {
    "AugmentConfig": "settings",
    "Classifier": "classifier",
    "DataConfig": "settings",
    "InputError": "errors",
    "OptimConfig": "settings",
    "Recipe": "settings",
    "ScheduleConfig": "settings",
    "create_model": "transfer",
    "cross_validate": "crossval",
    "find_learning_rate": "rate_finder",
    "finetune": "recipe",
    "load_classifier": "classifier",
    "load_dataset": "data.dataset",
    "load_pretrained_classifier": "classifier",
    "train": "recipe",
}
"""Name -> the module it is imported from."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
