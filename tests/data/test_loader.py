"""The same batches from any start, for any number of threads, workers and processes."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxvision.data.loader import Batches
from jaxvision.errors import InputError

INDICES = np.arange(100, 123)
LABELS = np.arange(200, dtype=np.int32) % 7


def noisy(index: int, generator: np.random.Generator) -> np.ndarray:
    """An image that shows its index and its generator's first number."""
    return np.array([[[index, generator.integers(256)]]], np.uint8)


def batches(*, train: bool = True, seed: int = 3, **options: int) -> Batches:
    options = {"batch_size": 8} | options
    return Batches(INDICES, LABELS, noisy, seed=seed, train=train, **options)


def take(source: Batches, count: int, start: int = 0) -> list[dict[str, np.ndarray]]:
    with source.iterate(start) as iterator:
        return [next(iterator) for _ in range(count)]


def assert_equal(ours: list[dict], theirs: list[dict]) -> None:
    assert len(ours) == len(theirs)
    for one, two in zip(ours, theirs, strict=True):
        assert one.keys() == two.keys() == {"image", "label", "mask"}
        for name in one:
            assert one[name].dtype == two[name].dtype
            np.testing.assert_array_equal(one[name], two[name])


def indices_of(stream: list[dict]) -> np.ndarray:
    return np.concatenate([batch["image"][:, 0, 0, 0] for batch in stream])


def masks_of(stream: list[dict]) -> np.ndarray:
    return np.concatenate([batch["mask"] for batch in stream])


def test_shapes_and_sizes() -> None:
    source = batches()
    assert (source.num_examples, source.batch_size, source.steps_per_epoch) == (
        23,
        8,
        3,
    )
    (batch,) = take(source, 1)
    assert batch["image"].shape == (8, 1, 1, 2)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].shape == batch["mask"].shape == (8,)
    assert batch["label"].dtype == np.int32
    assert batch["mask"].dtype == np.float32
    np.testing.assert_array_equal(batch["label"], LABELS[batch["image"][:, 0, 0, 0]])


def test_training_sees_every_image_once_an_epoch_in_another_order() -> None:
    orders = []
    for epoch in range(4):
        stream = take(batches(), 3, start=3 * epoch)
        order, mask = indices_of(stream), masks_of(stream)
        np.testing.assert_array_equal(mask, [1] * 23 + [0])
        assert sorted(order[:23]) == INDICES.tolist()
        # Filled up from the beginning of the same epoch.
        assert order[23] == order[0]
        orders.append(tuple(order))
    assert len(set(orders)) == 4


def test_a_seed_shares_no_epoch_with_the_next_seed() -> None:
    orders = {
        tuple(indices_of(take(batches(seed=seed), 3, start=3 * epoch)))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_evaluation_is_one_pass_in_order() -> None:
    stream = list(batches(train=False).iterate())
    np.testing.assert_array_equal(indices_of(stream), [*INDICES, INDICES[-1]])
    np.testing.assert_array_equal(masks_of(stream), [1] * 23 + [0])
    assert_equal(stream[2:], list(batches(train=False).iterate(start=2)))
    assert list(batches(train=False).iterate(start=3)) == []


def test_a_batch_may_be_larger_than_the_split() -> None:
    for train in (True, False):
        (batch,) = take(batches(train=train, batch_size=60), 1)
        assert batch["mask"].sum() == 23
        assert set(batch["image"][:, 0, 0, 0]) <= set(INDICES)


def test_randomness_is_the_images_own() -> None:
    stream = take(batches(), 6)
    noise = np.concatenate([batch["image"][:, 0, 0, 1] for batch in stream])
    assert len(set(noise.tolist())) > 25
    # Not the same again in the next epoch, nor for the image that fills up.
    by_index = {}
    for index, value in zip(indices_of(stream), noise, strict=True):
        by_index.setdefault(index, set()).add(value)
    assert sum(len(values) > 1 for values in by_index.values()) > 18


@pytest.mark.parametrize("num_threads", [0, 1, 2, 4])
def test_the_same_stream_from_every_batch(num_threads: int) -> None:
    whole = take(batches(), 9)
    for start in range(7):
        again = take(batches(num_threads=num_threads), 9 - start, start)
        assert_equal(again, whole[start:])


def test_position_is_saved_and_restored() -> None:
    whole = take(batches(), 9)
    for start in range(7):
        first = batches().iterate()
        for _ in range(start):
            next(first)
        state = first.get_state()
        assert state == {"next_batch": start}
        second = batches(num_threads=2).iterate()
        next(second)
        second.set_state(state)
        assert_equal([next(second) for _ in range(9 - start)], whole[start:])
        second.close()
        assert second.get_state() == {"next_batch": 9}
    with pytest.raises(ValueError, match="batch -1"):
        batches().iterate(-1)


def test_worker_processes_give_the_same_batches() -> None:
    again = take(batches(num_workers=2, num_threads=1), 5, start=3)
    assert_equal(again, take(batches(), 5, start=3))
    stream = list(batches(train=False, num_workers=2).iterate())
    assert_equal(stream, list(batches(train=False).iterate()))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("process_count", [2, 4, 8])
def test_processes_share_each_global_batch(process_count: int, train: bool) -> None:
    whole = take(batches(train=train), 3)
    parts = [
        take(batches(train=train, process_index=i, process_count=process_count), 3)
        for i in range(process_count)
    ]
    for step, batch in enumerate(whole):
        for name, values in batch.items():
            together = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(together, values)


@pytest.mark.parametrize("process_count", [1, 4])
@pytest.mark.parametrize("train", [True, False])
def test_arrays_come_in_the_order_of_images(train: bool, process_count: int) -> None:
    features = np.arange(200, dtype=np.float32)[:, None] * [1.0, 2.0]
    features = features.astype(np.float32)
    options = {"process_index": process_count - 1, "process_count": process_count}
    arrays = Batches.of_arrays(
        features, LABELS, INDICES, batch_size=8, seed=3, train=train, **options
    )
    images = batches(train=train, **options)
    assert arrays.steps_per_epoch == images.steps_per_epoch
    for one, two in zip(take(arrays, 3), take(images, 3), strict=True):
        np.testing.assert_array_equal(one["image"][:, 0], two["image"][:, 0, 0, 0])
        assert one["image"].dtype == np.float32
        np.testing.assert_array_equal(one["label"], two["label"])
        np.testing.assert_array_equal(one["mask"], two["mask"])


def test_golden_order() -> None:
    # Another order in a new version would break resuming the runs of an old one.
    stream = take(batches(), 9)
    content = indices_of(stream).tobytes() + masks_of(stream).tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == GOLDEN


GOLDEN = "eb932288edca408d"


@pytest.mark.parametrize(("batch_size", "process_count"), [(8, 3), (0, 1), (-4, 2)])
def test_batch_sizes_that_cannot_be_divided(
    batch_size: int, process_count: int
) -> None:
    with pytest.raises(
        InputError, match=f"`batch_size` {batch_size}: cannot be divided"
    ):
        batches(batch_size=batch_size, process_count=process_count)


def test_an_empty_split_and_a_negative_seed() -> None:
    with pytest.raises(InputError, match="`seed` -1: must be at least 0"):
        batches(seed=-1)
    with pytest.raises(InputError, match="the split has no image"):
        Batches(INDICES[:0], LABELS, noisy, batch_size=2, seed=0, train=False)


# A program of its own, since its processes are killed.
PROGRAM = """
import os, sys, time
import multiprocessing
from test_loader import batches
if __name__ == "__main__":
    iterator = batches(num_workers=2).iterate()
    next(iterator)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    while True:
        next(iterator)
        time.sleep(0.01)
"""


def start_program(tmp_path: Path) -> tuple[subprocess.Popen, list[int]]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    return process, [int(pid) for pid in process.stdout.readline().split()]


def alive(pid: int) -> bool:
    """Whether it runs; one that ended and was not yet waited for doesn't."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except FileNotFoundError:
        return False


def wait_until_gone(pids: list[int], seconds: float) -> list[int]:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(alive(pid) for pid in pids):
        time.sleep(0.05)
    return [pid for pid in pids if alive(pid)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_a_killed_process_leaves_an_error_and_no_orphans(
    tmp_path: Path, victim: str
) -> None:
    process, workers = start_program(tmp_path)
    assert len(workers) == 2
    os.kill(workers[0] if victim == "worker" else process.pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    if victim == "worker":
        assert "terminated unexpectedly with exit code -9" in errors
    assert wait_until_gone(workers, 30) == []
