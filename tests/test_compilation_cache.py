"""Compiled programs kept between runs: found again, same bits, never in the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax._src import compilation_cache as compilation

from jaxvision import compilation_cache

_PROGRAM = """
import json
import jax, jax.numpy as jnp, numpy as np
from jaxvision.compilation_cache import use_compilation_cache
problem = use_compilation_cache()
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
from jaxvision.models import create_model
model = create_model("simple_cnn", 3)
x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
variables = jax.jit(lambda: model.init(jax.random.key(0), x, train=False))()
loss = lambda params: jnp.square(model.apply({"params": params}, x, train=True)).sum()
gradient = jax.jit(jax.grad(loss))(variables["params"])
print(json.dumps({
    "problem": problem,
    "hits": found.count("/jax/compilation_cache/cache_hits"),
    "bits": [np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(gradient)],
}))
"""


def run(cache: Path) -> dict:
    """What a process of its own finds and computes."""
    environment = {**os.environ, "JAXVISION_CACHE": str(cache)}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        env=environment,
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


def entries(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_a_second_process_finds_the_programs_of_the_first(tmp_path):
    cold = run(tmp_path)
    assert cold["problem"] is None
    assert cold["hits"] == 0
    assert entries(tmp_path)
    warm = run(tmp_path)
    assert warm["hits"] >= 1
    assert warm["bits"] == cold["bits"]
    for path in entries(tmp_path):  # as a process leaves it that is killed in a write
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    damaged = run(tmp_path)
    assert damaged["hits"] == 0
    assert damaged["bits"] == cold["bits"]


def test_what_was_exchanged_or_has_a_flipped_bit_is_compiled_anew(tmp_path):
    cold = run(tmp_path)
    programs = [path for path in entries(tmp_path) if path.name.endswith("-cache")]
    assert programs
    assert len(entries(tmp_path)) == 2 * len(programs)  # each with its hash
    # zlib and zstd have checksums of their own: repacked by somebody who knows.
    damage = []
    for path in [*programs[1:], programs[0]]:
        content = bytearray(compilation.decompress_executable(path.read_bytes()))
        content[len(content) // 2] ^= 1
        damage.append(compilation.compress_executable(bytes(content)))
    for path, content in zip(programs, damage, strict=True):
        path.write_bytes(content)
    damaged = run(tmp_path)
    assert damaged["bits"] == cold["bits"]
    # Not by hits: a process may find a program that it has just compiled.
    assert not {path.read_bytes() for path in entries(tmp_path)} & {*damage}
    assert run(tmp_path)["hits"] >= 1


def test_programs_without_their_hash_and_hashes_alone_are_removed(tmp_path):
    for name in ("a-cache", "b-cache", "c-cache"):
        (tmp_path / name).write_bytes(b"program")
    compilation_cache._hash_new(tmp_path)
    (tmp_path / "a-cache.sha256").unlink()
    (tmp_path / "b-cache").unlink()
    compilation_cache._remove_damaged(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["c-cache", "c-cache.sha256"]


@pytest.fixture
def enable(monkeypatch, tmp_path):
    """jax's own switch, without the folder of the tests; both are put back."""
    monkeypatch.setenv("JAXVISION_CACHE", str(tmp_path))
    names = "jax_enable_compilation_cache", "jax_compilation_cache_dir"
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield lambda value: jax.config.update("jax_enable_compilation_cache", value)
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def settings(monkeypatch, enable):
    """What becomes of jax's settings."""
    enable(True)
    changed = {}
    with monkeypatch.context() as patch:
        patch.setattr(jax.config, "update", changed.__setitem__)
        yield changed


def test_it_can_be_switched_off(enable, tmp_path):
    enable(False)
    assert compilation_cache.use_compilation_cache() is None
    assert entries(tmp_path) == []
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX permissions")
def test_a_folder_that_others_may_write_to_is_not_used(settings, tmp_path):
    folder = tmp_path / "xla" / compilation_cache._processor()
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert "others may write" in compilation_cache.use_compilation_cache()
    assert settings == {}
    folder.chmod(0o700)
    assert compilation_cache.use_compilation_cache() is None
    assert settings["jax_compilation_cache_dir"] == str(folder)


def test_a_folder_that_cannot_be_made_stops_nothing(settings, tmp_path):
    (tmp_path / "xla").write_text("in the way")
    assert str(tmp_path) in compilation_cache.use_compilation_cache()
    assert settings == {}
