"""A small network that the page shows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from drawn_images import write_images
from served_pages import HOSTILE, Page, open_page
from trained_networks import write_checkpoints

from jaxvision.classifier import Classifier, load_classifier
from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.preprocessing import Preprocessing


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that knows three colors, one of them by a hostile name."""
    folder = tmp_path_factory.mktemp("serve")
    images = write_images(folder / "images")
    (images / "red").rename(images / HOSTILE.replace("/", ""))
    config = DataConfig(root=images, split=SplitConfig(train=0.5, val=0.25, test=0.25))
    preprocessing = Preprocessing(size=(16, 16), resize_mode="stretch")
    dataset = load_dataset(config).decode(preprocessing)
    options = {"blocks": 1, "filters": 4, "dense_width": 8}
    return write_checkpoints(
        folder / "checkpoint", dataset, "convnet", options, seeds=(0,)
    )


@pytest.fixture(scope="session")
def classifier(checkpoint: Path) -> Classifier:
    return load_classifier(checkpoint)


@pytest.fixture(scope="module")
def page(classifier: Classifier) -> Iterator[Page]:
    with open_page(classifier) as page:
        yield page
