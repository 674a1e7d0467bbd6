"""A classifier to export, and the script that lies beside the model."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxvision.classifier import Classifier, ModelCard
from jaxvision.data.splits import SplitRow
from jaxvision.preprocessing import Preprocessing
from jaxvision.training.state import init_variables

HOSTILE = ("=1+1", "</script><img src=x onerror=alert(1)>", "\x1b[31m\U0001f600\ud800")

CLASSES = ("blue", "green", "red")


def make_classifier(
    root: Path,
    preprocessing: Preprocessing | None = None,
    *,
    classes: Sequence[str] = CLASSES,
    **options: Any,
) -> Classifier:
    """A perceptron that is not trained, on the images below a folder."""
    card = ModelCard(
        network="mlp",
        options={"hidden": 8, **options},
        classes=tuple(classes),
        preprocessing=preprocessing or Preprocessing((12, 12), resize_mode="stretch"),
        weights="fresh",
        data={"is_demo": False, "root": str(root)},
        seed=0,
        batch_size=4,
    )
    model = card.create_model()
    shape = (*card.preprocessing.size, card.preprocessing.channels)
    splits = [
        SplitRow(path.relative_to(root).as_posix(), path.parent.name, split)
        for path in sorted(root.glob("*/*.png"))
        for split in ["test" if path.stem < "04" else "train"]
    ]
    return Classifier(model, init_variables(model, 0, shape), card, tuple(splits))


def load_script(folder: Path) -> ModuleType:
    """The exported `predict.py`, as a module."""
    spec = importlib.util.spec_from_file_location("exported", folder / "predict.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
