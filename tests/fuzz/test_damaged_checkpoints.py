"""Damaged and exchanged files of a checkpoint: the card, the manifest, the entries."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_images import write_images
from mutations import mutated

from jaxvision.classifier import load_classifier
from jaxvision.data.dataset import load_dataset
from jaxvision.errors import InputError
from jaxvision.recipe import Recipe, train
from jaxvision.storage import MANIFEST, write_manifest

HOSTILE: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        2**62,
        1e308,
        float("nan"),
        "",
        "x" * 1000,
        "../..",
        "\x1b[2J",
    ),
    *([], {}, [[]], [None], {"": 0}, ["a", "a"], [1e9, 1e9], {"size": [0, 0]}),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    data = load_dataset(write_images(folder / "photos"))
    recipe = Recipe("mlp", epochs=1, image_size=8).replace(method="scratch", hidden=4)
    train(data, recipe, folder=folder / "seed-0", progress=False)
    return folder / "seed-0"


def exchanged(value: Any, rng: np.random.Generator) -> Any:
    """One value somewhere in plain values is another one, gone, or new."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[rng.integers(len(value))]
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: exchanged(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = int(rng.integers(len(value)))
        return [*value[:place], exchanged(value[place], rng), *value[place + 1 :]]
    return HOSTILE[rng.integers(len(HOSTILE))]


def damage(folder: Path, rng: np.random.Generator) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    if path.suffix == ".json" and rng.random() < 0.6:
        path.write_text(json.dumps(exchanged(json.loads(path.read_text()), rng)))
    elif rng.random() < 0.1:
        path.unlink()
    else:
        path.write_bytes(mutated(path.read_bytes(), rng))
    # Half of the time by somebody who knows about manifests.
    if rng.random() < 0.5 and path.name != MANIFEST:
        for manifest in [*folder.rglob(MANIFEST)]:
            write_manifest(manifest.parent)


# Orbax leaves its event loop open where it has raised.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_checkpoints(
    tmp_path: Path,
    checkpoint: Path,
    cases: Callable[[int], Iterator[np.random.Generator]],
) -> None:
    image = np.zeros((1, 8, 8, 3), np.uint8)
    folder = tmp_path / "seed-0"
    for rng in cases(25):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(checkpoint, folder)
        damage(folder, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            message = ""
            try:
                classifier = load_classifier(folder)
                classifier.predict(image)
            except InputError as error:
                message = str(error)
        assert "\n" not in message
