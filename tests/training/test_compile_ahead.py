"""Programs that are compiled in a thread before they are called."""

import os
import platform
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from compiled_programs import compiled_programs, forget_programs
from random_runs import NORMALIZE, SHAPE, RandomBatches, small_model

from jaxvision.metrics import make_cross_entropy
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.training import parallel
from jaxvision.training.loop import Steps, fit_steps
from jaxvision.training.parallel import Program, Runner, compile_ahead
from jaxvision.training.state import create_state, init_variables
from jaxvision.training.step import make_eval_step, make_train_step

VECTOR = jax.ShapeDtypeStruct(
    (3,),
    np.float32,
    sharding=jax.sharding.SingleDeviceSharding(jax.local_devices()[0]),
)


@pytest.fixture
def compiled() -> Iterator[list[tuple[str, str]]]:
    forget_programs()
    with compiled_programs() as found:
        yield found


def test_a_call_finds_what_was_compiled_ahead(compiled):
    def double(x):
        return 2 * x

    program = Program(jax.jit(double))
    compile_ahead([program], lambda: [(VECTOR,)])
    ones = jax.device_put(np.ones(3, np.float32), jax.local_devices()[0])
    np.testing.assert_array_equal(program(ones), 2 * np.ones(3))
    assert compiled == [("jit(double)", "compile ahead")]
    # It has begun: nothing is to be done, not even shapes.
    compile_ahead([program], lambda: pytest.fail("shapes are asked for"))


def test_what_the_compiler_has_freed_is_returned_before_the_first_call(monkeypatch):
    calls = []
    monkeypatch.setattr(parallel, "return_freed_memory", lambda: calls.append("freed"))
    program = Program(jax.jit(lambda x: x + 1))
    compile_ahead([program], lambda: [(VECTOR,)])
    for _ in range(2):
        calls.append("called")
        program(np.ones(3, np.float32))
    assert calls == ["called", "freed", "called"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's")
def test_freed_memory_is_returned():
    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    blocks = [np.ones(500) for _ in range(50_000)]  # 200 MB, none of them mapped alone
    pin = np.ones(500)
    whole = resident()
    del blocks
    parallel.return_freed_memory()
    assert resident() < whole - 100e6
    del pin


def test_what_is_wrong_is_raised_by_the_call_with_its_traceback():
    def broken(x):
        return x @ np.ones((5, 5))

    program = Program(jax.jit(broken))
    compile_ahead([program], lambda: [(VECTOR,)])
    with pytest.raises(TypeError, match="dot_general") as caught:
        program(np.ones(3, np.float32))
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert any(frame.name == "broken" for frame in frames)


def test_a_training_whose_steps_were_compiled_ahead_has_the_same_bits(compiled):
    model = small_model(batch_norm=True)
    tx = make_optimizer(OptimConfig("adamw", 1e-3), steps_per_epoch=3, epochs=2)
    parts: dict[str, Any] = {"loss": make_cross_entropy(), "normalize": NORMALIZE}
    state = create_state(init_variables(model, 0, SHAPE), tx, seed=0)
    train = RandomBatches(num_examples=20, batch_size=8, train=True)
    val = RandomBatches(num_examples=8, batch_size=8, train=False)
    runner = Runner((jax.local_devices()[0],))
    ahead = Steps.compile(model, tx, runner=runner, **parts)
    ahead.compile_ahead(lambda: (state, next(train.iterate())))
    found = fit_steps(ahead, state, train, epochs=2, val=val)
    steps = [name for name in compiled if "_step" in name[0]]
    assert steps == [
        ("jit(train_step)", "compile ahead"), ("jit(eval_step)", "compile ahead")
    ]  # fmt: skip
    when_called = Steps(
        runner,
        Program(runner.compile_train(make_train_step(model, tx, **parts))),
        Program(runner.compile_eval(make_eval_step(model, **parts))),
    )
    wanted = fit_steps(when_called, state, train, epochs=2, val=val)
    jax.tree.map(np.testing.assert_array_equal, found.state, wanted.state)
    for mine, theirs in zip(found.history, wanted.history, strict=True):
        assert {**mine, **TIMES} == {**theirs, **TIMES}


TIMES = {"seconds": 0.0, "images_per_second": 0.0}
