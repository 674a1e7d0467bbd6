"""The benchmarks of the input compare what is the same. No times, no sizes."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import input_memory, input_pipeline
from benchmarks.harness import Timing
from jaxvision.data import load_dataset
from jaxvision.data.demo import DemoConfig, write_demo
from jaxvision.errors import InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "comics"
    write_demo(DemoConfig("comics", folder, count=3, size=400, processes=1))
    return folder


def test_both_sides_see_the_same_images(root: Path) -> None:
    dataset = load_dataset(root).decode(input_pipeline.PREPROCESSING)
    paths = [root / image for image in dataset.images]
    for gray_first in (True, False):
        theirs = input_pipeline._TorchImages(paths, gray_first=gray_first)
        assert len(theirs) == len(dataset.images) == 6
        for index in range(6):
            ours = dataset.image(index)[..., 0].astype(int)
            # Decoded at half the scale, and the luma that the file holds.
            assert np.abs(ours - theirs[index][0]).mean() < 1


def test_each_contestant_has_a_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def once(contestants: dict, **_: object) -> dict[str, Timing]:
        for call in contestants.values():
            call()
        return {name: Timing((2.0,)) for name in contestants}

    monkeypatch.setattr(input_pipeline, "time_in_turn", once)
    # Its workers are forked, which a process with JAX's threads had better not be.
    monkeypatch.setattr(input_pipeline, "_torch_epoch", lambda *_, **__: None)
    result = input_pipeline.run(quick=True, root=root, workers=1)
    assert len(result.rows) == 7
    by_name = {figure["name"]: figure for figure in result.figures}
    assert by_name[input_pipeline.BOUND]["images_per_second"] == pytest.approx(3)
    # All epochs took two seconds together.
    assert by_name[input_pipeline.PREPARED]["times_torch"] == pytest.approx(1666)


def test_memory_is_measured_on_as_many_images_as_asked(
    root: Path, tmp_path: Path
) -> None:
    input_memory._link(root, tmp_path / "few", 4)
    linked = sorted(path.name for path in tmp_path.rglob("*.jpg"))
    assert linked == ["0000.jpg", "0000.jpg", "0001.jpg", "0001.jpg"]
    with pytest.raises(InputError, match="fewer than 5 images of a class"):
        input_memory._link(root, tmp_path / "many", 10)
