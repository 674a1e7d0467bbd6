"""Traces that are kept between runs: found again, never those of something else."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxvision import compilation_cache, kept_traces, ops
from jaxvision.classifier import _probabilities
from jaxvision.kept_traces import KeptTrace
from jaxvision.metrics import make_cross_entropy
from jaxvision.models import MODELS, create_model
from jaxvision.preprocessing import Preprocessing
from jaxvision.training.parallel import Program, Runner, compile_ahead
from jaxvision.training.state import init_variables
from jaxvision.training.step import make_eval_step

NORMALIZE = Preprocessing(size=(16, 16))
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compilation_cache, "_folder", tmp_path)
    return tmp_path


class Counted:
    """Twice the sine of the values in `{"x": ...}`, and how often it was traced."""

    def __init__(self, about: Any = (1, "a")) -> None:
        self.traced = 0

        def twice_sine(tree: dict[str, jax.Array]) -> dict[str, jax.Array]:
            self.traced += 1
            return {"y": 2 * jnp.sin(tree["x"])}

        self.trace = KeptTrace(twice_sine, about)

    def __call__(self, x: np.ndarray = X) -> np.ndarray:
        return np.asarray(self.trace({"x": x})["y"])


def traces(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-trace"))


def test_what_was_traced_once_is_not_traced_again(folder):
    first, second = Counted(), Counted()
    wanted = np.asarray(jax.jit(lambda x: 2 * jnp.sin(x))(X))
    np.testing.assert_array_equal(first(), wanted)
    np.testing.assert_array_equal(second(), wanted)
    np.testing.assert_array_equal(second(), wanted)
    assert (first.traced, second.traced) == (1, 0)
    (path,) = traces(folder)
    digest = (folder / f"{path.name}.sha256").read_text()
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    compilation_cache._remove_damaged(folder)
    assert path.exists()


@pytest.mark.parametrize(
    "other",
    [
        lambda: Counted((1.0, "a"))(),
        lambda: Counted((1, "b"))(),
        lambda: Counted()(X[:1]),
        lambda: Counted()(X.astype(np.int32)),
    ],
    ids=["a float for an int", "another word", "another shape", "another type"],
)
def test_what_differs_is_traced_by_itself(folder, other: Callable[[], Any]):
    Counted()()
    other()
    assert len(traces(folder)) == 2


def test_other_code_settings_and_formulations_are_traced_by_themselves(
    folder, monkeypatch
):
    Counted()()
    with ops.lax_only():
        Counted()()
    assert len(traces(folder)) == 2
    kept_traces._surroundings.cache_clear()
    monkeypatch.setattr(kept_traces, "_code", lambda: "of another version")
    Counted()()
    kept_traces._surroundings.cache_clear()
    assert len(traces(folder)) == 3


def test_the_code_is_that_of_every_module(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "models").mkdir(parents=True)
    module = package / "models" / "new.py"
    monkeypatch.setattr(kept_traces, "__file__", str(package / "kept_traces.py"))
    found = []
    for text in ("x = 1\n", "x = 2\n"):
        module.write_text(text)
        found.append(kept_traces._code())
    module.rename(package / "new.py")
    assert len({*found, kept_traces._code()}) == 3


def test_what_is_damaged_is_traced_and_kept_anew(folder):
    Counted()()
    (path,) = traces(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    again = Counted()
    np.testing.assert_array_equal(again(), Counted()())
    assert again.traced == 1
    assert compilation_cache.read_kept(path.name) is not None


def test_nothing_is_kept_where_programs_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation_cache, "_folder", None)
    counted = Counted()
    counted()
    assert counted.traced == 1
    monkeypatch.setattr(compilation_cache, "_folder", tmp_path / "is not there")
    np.testing.assert_array_equal(Counted()(), counted())


def test_what_closes_over_something_else_is_not_kept(folder):
    for about in (object(), lambda x: x, Counted, np.ones(3), functools.partial(max)):
        counted = Counted(about)
        counted()
        assert counted.traced == 1
    assert not traces(folder)


def test_what_calls_a_library_is_not_kept(folder):
    def solved(x: jax.Array) -> jax.Array:
        return jnp.linalg.qr(x)[1]

    np.testing.assert_array_equal(KeptTrace(solved, None)(X), jax.jit(solved)(X))
    assert not traces(folder)


def test_arguments_without_a_part_are_found_with_and_without_a_kept_trace(folder):
    def first(a: jax.Array, b: jax.Array) -> jax.Array:
        return 2 * a

    def both(a: jax.Array, b: jax.Array) -> jax.Array:
        return a * b

    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    for about in ("kept", object()):  # which is not
        for _ in range(2):
            assert not KeptTrace(first, about).uses_all(X, shape)
            assert KeptTrace(both, about).uses_all(X, shape)
    assert len(traces(folder)) == 2
    with pytest.raises(TypeError):
        KeptTrace(both, "kept").uses_all(X, jax.ShapeDtypeStruct((5, 5), X.dtype))


@pytest.mark.parametrize("name", MODELS)
def test_every_network_is_told_from_others_by_plain_values(name):
    def described(**options: Any) -> Any:
        return kept_traces._described(create_model(name, 3, **options))

    assert described() == described()
    others = [described(dtype=jnp.bfloat16), described(pooling="mean"), described()]
    assert others[0] != others[1] != others[2] != others[0]


def probabilities_of(name: str, x: np.ndarray, **options: Any) -> Callable[[], Any]:
    model = create_model(name, 3, **options)
    variables = init_variables(model, 0, x.shape[1:])
    temperature = np.float32(1.5)

    def compute() -> np.ndarray:
        _probabilities.cache_clear()
        program = _probabilities(model, NORMALIZE)
        return np.asarray(program(variables, temperature, x))

    return compute


def test_predictions_have_the_same_bits(folder, monkeypatch):
    x = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    compute = probabilities_of("convnet", x, norm="batch", blocks=1)
    kept = [compute(), compute()]
    assert len(traces(folder)) == 1
    monkeypatch.setattr(compilation_cache, "_folder", None)
    for found in kept:
        np.testing.assert_array_equal(found, compute())


def test_an_evaluation_that_is_compiled_ahead_has_the_same_bits(folder):
    model = create_model("mlp", 3, hidden=5)
    parts: dict[str, Any] = {"loss": make_cross_entropy(), "normalize": NORMALIZE}
    step = make_eval_step(model, **parts)
    runner = Runner(tuple(jax.local_devices()[:1]))
    variables = runner.replicate(init_variables(model, 0, (16, 16, 3)))
    batch = runner.place_batch(
        {
            "image": np.full((4, 16, 16, 3), 7, np.uint8),
            "label": np.array([0, 1, 2, 0], np.int32),
            "mask": np.array([1, 1, 1, 0], np.float32),
        }
    )
    wanted, _ = ravel_pytree(runner.compile_eval(step)(variables, batch))
    for _ in range(2):
        about = (model, *parts.values())
        ahead = Program(runner.compile_eval(step, about=about))
        shapes = runner.placed_shapes((variables, batch))
        compile_ahead([ahead], lambda shapes=shapes: [shapes])
        found, _ = ravel_pytree(ahead(variables, batch))
        np.testing.assert_array_equal(found, wanted)
    assert len(traces(folder)) == 1
