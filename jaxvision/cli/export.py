"""`jaxvision export`: a trained network for where there is no JAX."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxvision.cli.flags import OptionalCheckpoint, run
from jaxvision.cli.process import keep_compiled
from jaxvision.errors import InputError

if TYPE_CHECKING:
    from jaxvision.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Config:
    """Writes an ONNX model, its labels, and a script that classifies images without
    JAX.

    The model is written only if ONNX Runtime answers as the network does.
    """

    out: Path
    """A new folder, or an empty one."""
    checkpoint: OptionalCheckpoint = None
    """Folder of a training run, or of one of its seeds."""
    pretrained: str | None = None
    """In place of CHECKPOINT: pretrained weights with ImageNet's classes, such as
    efficientnet_lite0; `jaxvision weights list` shows all."""
    images: tuple[Path, ...] = ()
    """Image files to check the model by; none: those of the network's data set that it
    was not trained on. Pretrained weights need some."""
    batch: int | Literal["dynamic"] = 1
    """Images that the model takes at once; dynamic: any number."""
    dtype: Literal["float32", "float16"] = "float32"
    """What weights are stored in; float16 takes half the space, and all is computed in
    float32 as well."""
    web: bool = False
    """Add a page that classifies a dropped image in the browser."""


def main(arguments: Sequence[str]) -> None:
    run(Config, export, arguments, "jaxvision export")


def export(config: Config) -> None:
    from jaxvision.report.progress import Progress

    keep_compiled()
    classifier = _classifier(config)
    with Progress("checking", unit="images") as progress:
        found = classifier.export(
            config.out,
            images=config.images or None,
            batch=config.batch,
            dtype=config.dtype,
            web=config.web,
            progress=progress,
        )
    print(
        f"checked on {found.images} images: same classes, logits differ by at most "
        f"{found.difference:.1e} of the largest (allowed: {found.tolerance:g})"
    )
    print(f"model.onnx: {found.size_bytes / 1e6:.1f} MB")
    if config.web:
        folder = shlex.quote(str(found.folder))
        print("to put ONNX Runtime beside the page, and to open it on port 8000:")
        print(f"  npm install --ignore-scripts --prefix {folder}")
        print(f"  python -m http.server --bind 127.0.0.1 --directory {folder}")
    print(found.folder)


def _classifier(config: Config) -> "Classifier":
    from jaxvision.classifier import load_classifier, load_pretrained_classifier

    if (config.checkpoint is None) == (config.pretrained is None):
        raise InputError(
            "give the folder that training printed, or `pretrained`: one of the two",
            setting="checkpoint",
        )
    if config.checkpoint is not None:
        return load_classifier(config.checkpoint)
    assert config.pretrained is not None
    if not config.images:
        raise InputError(
            "give some to check the model by: pretrained weights bring none",
            setting="images",
        )
    return load_pretrained_classifier(config.pretrained)
