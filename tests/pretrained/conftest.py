"""What the tests of pretrained weights share: a cache folder of their own."""

import os
from collections.abc import Iterator
from pathlib import Path

# Keras reads it when it is imported.
os.environ["KERAS_BACKEND"] = "jax"

import jax
import pytest


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests that only read what was converted."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def converted_once(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are converted by the first test and read from the cache by the others."""
    monkeypatch.setenv("JAXVISION_CACHE", str(shared_cache))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("JAXVISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def full_precision() -> Iterator[None]:
    """Products of float32 in float32, on every backend."""
    with jax.default_matmul_precision("highest"):
        yield
