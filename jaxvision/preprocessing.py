"""How an image becomes a network's input: it travels with the weights.

The geometry (size, resize_mode, interpolation) is done once on the host by
`jaxvision.data`, which hands out uint8 images of `size`; the numbers (channel order,
mean, standard deviation) are applied once on the device by `Preprocessing.normalize`.
"""

import dataclasses
import math
from typing import Any, Literal

ResizeMode = Literal["crop", "stretch", "pad"]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Geometry on the host, normalization on the device."""

    size: tuple[int, int] = (224, 224)
    """Height and width of the network's input, in pixels."""
    resize_mode: ResizeMode = "crop"
    """crop: shorter side to `resize`, then the center; stretch: both sides to `size`,
    whatever the image's shape; pad: longer side to fit, black bars around."""
    resize: int = 256
    """Shorter side before the center crop, in pixels; only for `crop`."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Pillow's filter of that name, which antialiases."""
    gray: bool = False
    """One channel (ITU-R 601 luma) in place of RGB."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Order in which the network wants the channels; files are always read as RGB."""
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    """Subtracted from each channel, on the scale 0 to 255, in the network's order."""
    std: tuple[float, ...] = (127.5, 127.5, 127.5)
    """Divides each channel after the mean is subtracted, on the scale 0 to 255."""
    standardize: bool = False
    """Every image by its own mean and deviation, in place of `mean` and `std`."""

    @property
    def channels(self) -> int:
        """Of the images: 1 if gray, else 3."""
        return 1 if self.gray else 3

    def normalize(self, images: Any) -> Any:
        """Scales images for the network; pure, and works in NumPy and in JAX alike.

        Args:
          images: `[..., H, W, C]` uint8, RGB or gray.

        Returns:
          `[..., H, W, C]` float32: `(images - mean) / std`, channels in
          `channel_order`. With `standardize`, mean and deviation are those of all
          values of the image, the deviation at least 1 / sqrt(H W C) so that
          images of one color become zeros: tf.image.per_image_standardization,
          https://www.tensorflow.org/api_docs/python/tf/image/per_image_standardization
        """
        if self.channel_order == "bgr":
            images = images[..., ::-1]
        # float32 scalars per channel, not a float64 array: NumPy would promote.
        images = images.astype("float32")
        if self.standardize:
            return _standardized(images)
        mean = _per_channel(self.mean, images)
        std = _per_channel(self.std, images)
        return (images - mean) / std

    def __call__(self, images: Any) -> Any:
        """As `normalize`: for programs, which equal preprocessings share; methods of
        two equal objects are two functions."""
        return self.normalize(images)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`; JSON's lists become tuples again."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**fields)


def _standardized(images: Any) -> Any:
    image = (-3, -2, -1)
    # About one of its own values: the mean of equal ones is then exact.
    images = images - images[..., :1, :1, :1]
    centered = images - images.mean(image, keepdims=True)
    variance = (centered * centered).mean(image, keepdims=True)
    values = math.prod(images.shape[-3:])
    return centered / (variance**0.5).clip(values**-0.5)


def _per_channel(values: tuple[float, ...], like: Any) -> Any:
    import numpy as np

    array = np.asarray(values, np.float32)
    return array.reshape((1,) * (like.ndim - 1) + array.shape)
