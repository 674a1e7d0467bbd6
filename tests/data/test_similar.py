"""Nearly identical images: copies are found, other images are not."""

from pathlib import Path

import numpy as np
from PIL import Image

from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.prepare import PrepareConfig, prepare
from jaxvision.data.similar import difference_hash, find_similar
from jaxvision.data.splits import SplitRow
from jaxvision.preprocessing import Preprocessing

SMALL = Preprocessing(size=(32, 32), resize_mode="stretch")


def blurred(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)


def fill(root: Path) -> Path:
    for number in range(12):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        blurred(number).save(path)
    # Copies: recompressed, and smaller in another format.
    blurred(0).save(root / "a" / "copy.jpg", quality=60)
    blurred(1).resize((80, 60)).save(root / "b" / "copy.webp", quality=80)
    return root


def test_copies_are_found_and_stay_where_they_are(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos")
    dataset = load_dataset(root).decode(SMALL)
    found = {(pair.image, pair.other) for pair in dataset.similar}
    assert found == {("a/0.png", "a/copy.jpg"), ("b/1.png", "b/copy.webp")}
    assert all(pair.bits <= 16 for pair in dataset.similar)
    split_of = {
        dataset.images[i]: name for name, part in dataset.splits.items() for i in part
    }
    for pair in dataset.similar:
        assert (pair.split, pair.other_split) == (
            split_of[pair.image],
            split_of[pair.other],
        )
    rows = [
        SplitRow(image, image[0], "test" if "copy" in image else "train")
        for image in dataset.images
    ]
    divided = dataset.with_splits(rows)
    assert {(p.split, p.other_split) for p in divided.similar} == {("train", "test")}
    prepare(PrepareConfig(root, tmp_path / "out", (32,), processes=1))
    prepared = load_dataset(tmp_path / "out").decode(SMALL)
    assert prepared.similar == dataset.similar
    later = load_dataset(DataConfig(root, decode="while_training")).decode(SMALL)
    assert later.similar == ()


def test_other_images_are_not_similar() -> None:
    hashes = [difference_hash(np.asarray(blurred(seed))) for seed in range(300)]
    # Drawings on white paper and images without anything.
    for seed in range(100):
        paper = np.full((64, 64, 1), 255, np.uint8)
        row, column = np.random.default_rng(seed).integers(0, 48, 2)
        paper[row : row + 9, column : column + 9] = 0
        hashes.append(difference_hash(paper))
    hashes += [difference_hash(np.full((9, 9, 3), gray, np.uint8)) for gray in (0, 99)]
    pairs = find_similar(hashes)
    # Squares at the same place but for a pixel or two are similar.
    assert all(first >= 300 for first, _, _ in pairs)
    assert len(pairs) < 20


def test_hashes_are_compared_in_blocks() -> None:
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32) for _ in range(700)]
    hashes[650] = bytes([hashes[3][0] ^ 1]) + hashes[3][1:]
    assert find_similar(hashes) == [(3, 650, 1)]
