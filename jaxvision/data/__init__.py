"""Images: folders, labels, splits, decoding, transforms, loading. No JAX in here.

dataset = load_dataset("data/facescrub").decode(preprocessing)
batches = dataset.batches("train", batch_size=32, train=True)
for batch in batches.iterate(): ...
"""

from jaxvision.data.config import DataConfig
from jaxvision.data.dataset import Dataset, DecodedDataset, load_dataset
from jaxvision.data.decode import BadImage, decode_image
from jaxvision.data.splits import SplitConfig
from jaxvision.data.transforms import TRANSFORMS, AugmentConfig

__all__ = [
    "TRANSFORMS",
    "AugmentConfig",
    "BadImage",
    "DataConfig",
    "Dataset",
    "DecodedDataset",
    "SplitConfig",
    "decode_image",
    "load_dataset",
]
