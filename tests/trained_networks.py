"""Small networks in checkpoint folders, as trainings leave them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxvision.classifier import Classifier, ModelCard
from jaxvision.data.dataset import DecodedDataset
from jaxvision.data.splits import read_splits
from jaxvision.training.state import init_variables


def write_checkpoints(
    folder: Path,
    dataset: DecodedDataset,
    network: str,
    options: dict[str, Any],
    seeds: Sequence[int] = (0, 1),
) -> Path:
    """A run of networks that are not trained, each measured on its own splits."""
    folder.mkdir(parents=True)
    for seed in seeds:
        dataset = dataset.with_seed(seed)
        dataset.write_splits(folder / "splits.csv")
        splits = tuple(read_splits(folder / "splits.csv"))
        card = ModelCard(
            network=network,
            options=options,
            classes=dataset.classes,
            preprocessing=dataset.preprocessing,
            weights="fresh",
            data={},
            seed=0,
            batch_size=8,
        ).of_training(dataset, seed)
        model = card.create_model()
        shape = (*dataset.preprocessing.size, dataset.preprocessing.channels)
        classifier = Classifier(model, init_variables(model, seed, shape), card, splits)
        recorded = {
            split: classifier.evaluate(dataset, split).row
            for split, indices in dataset.splits.items()
            if len(indices)
        }
        card = dataclasses.replace(card, recorded=recorded)
        dataclasses.replace(classifier, card=card).save(folder / f"seed-{seed}")
    return folder
