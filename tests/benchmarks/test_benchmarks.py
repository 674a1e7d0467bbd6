"""The benchmarks measure what they say, and compare what is the same. No times."""

import json

import jax
import numpy as np
import pytest
import torch

from benchmarks import networks
from benchmarks.__main__ import Config, main, write
from benchmarks.harness import Rates, Result, Timing, Work, milliseconds, time_in_turn
from benchmarks.networks import CASES, Case, check_same, make_problem
from benchmarks.torch_twin import channels_first, torch_twin
from jaxvision.errors import InputError
from jaxvision.models import MODELS, efficientnet, resnet
from jaxvision.preprocessing import Preprocessing
from jaxvision.report.run_folder import RunFolder


class Clock:
    """Time that passes only in calls and rests."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def work(self, name: str, seconds: list[float]):
        remaining = iter(seconds)

        def call() -> None:
            self.calls.append(name)
            self.now += next(remaining)

        return call

    def sleep(self, seconds: float) -> None:
        self.calls.append("rest")
        self.now += seconds


def test_contestants_take_turns_and_warming_up_does_not_count():
    clock = Clock()
    # Two calls before all rounds, and one before each measurement, are slow.
    quick = clock.work("a", [9, 1, 7, 2, 8, 4, 9, 3])
    slow = clock.work("b", [9, 1, 7, 4, 8, 8, 9, 9])
    found = time_in_turn(
        {"a": quick, "b": slow},
        budget_seconds=0,
        least_rounds=3,
        clock=lambda: clock.now,
        sleep=clock.sleep,
    )
    assert found["a"].seconds == pytest.approx((2, 4, 3))
    assert found["b"].seconds == pytest.approx((4, 8, 9))
    assert found["a"].median == pytest.approx(3)
    assert found["b"].ratio_to(found["a"]) == pytest.approx(2)  # of 2, 2 and 3
    rounds = [clock.calls[start : start + 6] for start in range(4, 22, 6)]
    a, b = ["rest", "a", "a"], ["rest", "b", "b"]
    assert rounds == [a + b, b + a, a + b]


def test_quick_calls_are_measured_several_at_a_time():
    clock = Clock()
    call = clock.work("a", [0.004] * 1000)
    found = time_in_turn(
        {"a": call}, budget_seconds=1, clock=lambda: clock.now, sleep=clock.sleep
    )
    assert found["a"].median == pytest.approx(0.004)
    # 13 calls that do not count and 13 that do, 50 ms and more of each.
    assert clock.calls[2:30] == ["rest", *["a"] * 26, "rest"]
    assert len(found["a"].seconds) == 8  # 124 ms a round


def test_the_bound_is_the_larger_one():
    rates = Rates(flops=100.0, bytes=10.0)
    assert Work(flops=400, bytes=10).bound(rates) == (4.0, "arithmetic")
    assert Work(flops=400, bytes=50).bound(rates) == (5.0, "memory")


def test_milliseconds_have_three_digits():
    assert milliseconds(Timing((0.0123456,))) == "12.3 (12.3–12.3)"
    assert milliseconds(Timing((1.0, 2.0, 3.0))) == "2000 (1500–2500)"
    assert milliseconds(None) == "–"


SMALL = {
    "mlp": (Case(3, (5, 6, 3), 4), {}),
    "simple_cnn": (Case(3, (21, 20, 3), 4), {}),
    # Borders that are wider after than before, residuals, means.
    "efficientnet_lite0": (
        Case(3, (18, 16, 3), 4),
        {"stages": (efficientnet.Stage(2, 3, 2, 2, 8),)},
    ),
    # A pool whose border may win over what has not been rectified.
    "resnet50_v2": (
        Case(3, (12, 12, 3), 4),
        {"stages": (resnet.Stage(1, 4, 1),)},
    ),
    # Flattened images, local response norm, pools.
    "convnet": (
        Case(3, (20, 17, 3), 4),
        {"norm": "local_response", "padding": "same", "blocks": 2, "filters": 4},
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_twin_trains_alike(name):
    """Two steps: the second loss depends on the gradient and the update."""
    problem = make_problem(name, *SMALL[name])
    ours, theirs = networks.our_step(problem), networks.torch_step(problem)
    losses = [(ours(), theirs()) for _ in range(2)]
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=1e-4)
    assert losses[1][0] < losses[0][0]
    last = networks.torch_step(problem, channels_last=True)
    np.testing.assert_allclose(last(), losses[0][1], rtol=1e-4)


def test_the_twin_answers_alike():
    problem = make_problem("simple_cnn", *SMALL["simple_cnn"])
    ours = networks.our_forward(problem)()
    plain_lax = networks.our_forward(problem, plain_lax=True)()
    theirs = networks.torch_forward(problem)()
    check_same("ours", [ours], [theirs])
    check_same("plain lax", [plain_lax], [theirs])
    with pytest.raises(AssertionError, match="ours differs from torch"):
        check_same("ours", [ours + 0.1], [theirs])
    with pytest.raises(AssertionError):
        check_same("ours", [ours * np.nan], [theirs])


@pytest.mark.parametrize("name", sorted(CASES.keys() & MODELS.keys()))
def test_every_network_has_a_twin(name):
    case = CASES[name]
    problem = make_problem(name, Case(1, case.image_shape, case.num_classes))
    twin = torch_twin(problem.model, problem.variables, case.image_shape).eval()
    with torch.inference_mode():
        logits = twin(channels_first(problem.images))
    assert logits.shape == (1, case.num_classes)
    assert torch.isfinite(logits).all()
    count = sum(p.numel() for p in twin.parameters())
    assert count == sum(
        leaf.size for leaf in jax.tree.leaves(problem.variables["params"])
    )


def test_all_of_one_exported_network_answer_alike():
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from benchmarks import export

    problem = make_problem("simple_cnn", Case(1, (20, 20, 3), 4))
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    preprocessing = Preprocessing((20, 20), std=(50.0, 60.0, 70.0))
    answering = export.contestants(
        problem.model, problem.variables, preprocessing, image
    )
    assert len(answering) == 4
    reference = answering[export.EAGER]()
    for name, call in answering.items():
        check_same(name, [call()], [reference])


def test_work_is_counted():
    problem = make_problem("mlp", Case(2, (4, 4, 1), 3), {"hidden": 5})
    forward, step = networks.count_work(problem)
    assert forward.flops == 2 * 2 * (16 * 5 + 5 * 3)
    # Weights and input of the head, weights of the hidden layer.
    assert step.flops == forward.flops + 2 * 2 * (16 * 5 + 2 * 5 * 3)
    parameters = 16 * 5 + 5 + 5 * 3 + 3
    assert forward.bytes == 4 * (2 * (16 + 5 + 5 + 3) + parameters)


def test_the_page_says_what_was_measured_and_what_failed(tmp_path):
    folder = RunFolder.create("benchmarks", root=tmp_path)
    result = Result("Networks", "A note.", ("network", "ms"), [["a|b", 1]], [{"x": 1}])
    took = {"transfer": 1.0, "networks": 2.0}
    write(folder, Config(), {"networks": [result]}, {"transfer": "no torch"}, took)
    page = (folder.path / "benchmarks.md").read_text("utf-8")
    assert r"| a\|b | 1 |" in page
    assert "no torch" in page
    assert page.index("Networks") < page.index("Failed")
    values = json.loads((folder.path / "benchmarks.json").read_text("utf-8"))
    assert values["figures"]["networks"][0]["rows"] == [{"x": 1}]
    assert values["versions"]["torch"] == torch.__version__


def test_a_network_that_is_not_timed_is_named_before_anything_is(tmp_path):
    with pytest.raises(InputError, match=r"convnet.*choose among simple_cnn"):
        main(Config(networks=("mlp", "convnet"), runs=tmp_path))
    assert not any(tmp_path.iterdir())
