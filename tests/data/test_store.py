"""Memory and file give the same images, within the memory that was allowed."""

import gc
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jaxvision.data.store import ImageStore
from jaxvision.errors import InputError


def images(count: int = 20) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(*rng.integers(1, 60, 2), (1, 3)[index % 2]) for index in range(count)]
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


def filled(limit: int, folder: Path, *, shared: bool = False) -> ImageStore:
    store = ImageStore(limit, folder=folder, shared=shared)
    for image in images():
        store.append(image)
    return store


def test_memory_and_file_are_equal(tmp_path: Path) -> None:
    total = sum(image.nbytes for image in images())
    for limit, in_memory in [(total, True), (total - 1, False), (0, False)]:
        store = filled(limit, tmp_path)
        assert store.in_memory == in_memory
        assert store.nbytes == total
        assert len(store) == 20
        for index, image in enumerate(images()):
            np.testing.assert_array_equal(store[index], image)
            assert type(store[index]) is np.ndarray


def test_the_file_is_nameless_or_removed(tmp_path: Path) -> None:
    store = filled(0, tmp_path)
    assert list(tmp_path.iterdir()) == []
    del store
    shared = filled(10**9, tmp_path, shared=True)
    assert not shared.in_memory
    assert len(list(tmp_path.iterdir())) == 1
    del shared
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_shared_store_travels_cheaply(tmp_path: Path) -> None:
    store = filled(0, tmp_path, shared=True)
    packed = pickle.dumps(store)
    assert len(packed) < 2000
    other = pickle.loads(packed)
    for index, image in enumerate(images()):
        np.testing.assert_array_equal(other[index], image)
    del other
    gc.collect()
    np.testing.assert_array_equal(store[3], images()[3])
    with pytest.raises(TypeError, match="only a shared store"):
        pickle.dumps(filled(0, tmp_path))


def test_read_from_many_threads(tmp_path: Path) -> None:
    store, expected = filled(0, tmp_path), images()
    places = np.random.default_rng(1).integers(0, 20, 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        for place, image in zip(
            places, pool.map(store.__getitem__, places), strict=True
        ):
            np.testing.assert_array_equal(image, expected[place])


def test_views_are_copied_and_protected(tmp_path: Path) -> None:
    store = ImageStore(10**6)
    large = np.zeros((50, 50, 3), np.uint8)
    store.append(large[10:12, 10:12])
    large[:] = 7
    assert store[0].max() == 0
    with pytest.raises(ValueError, match="read-only"):
        store[0][0] = 1


def test_wrong_use(tmp_path: Path) -> None:
    store = filled(0, tmp_path)
    with pytest.raises(IndexError):
        store[20]
    with pytest.raises(IndexError):
        store[-1]
    with pytest.raises(TypeError, match="uint8"):
        store.append(np.zeros((1, 1, 3)))


def test_a_full_disk_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    store = ImageStore(0)
    store.append(images()[0])
    store._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(InputError, match=r"No space left.*`data.cache_dir`"):
        store.append(images()[0])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"decoded images cannot be written"):
        ImageStore(0, folder=tmp_path / "file" / "x").append(images()[0])


PEAK = """
import resource, sys
import numpy as np
from jaxvision.data.store import ImageStore
store = ImageStore(4 << 20)
rng = np.random.default_rng(0)
for _ in range(int(sys.argv[1])):
    store.append(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
total = sum(int(store[index][0, 0, 0]) for index in range(len(store)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_peak_memory_does_not_grow_with_the_images() -> None:
    # 12 KiB each: 24 and 96 MiB in all, of which 4 may be held.
    few, many = (
        int(
            subprocess.run(
                [sys.executable, "-c", PEAK, str(count)],
                check=True,
                capture_output=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            ).stdout
        )
        for count in (2000, 8000)
    )
    assert many - few < 8 * 1024
