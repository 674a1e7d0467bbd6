"""A new head on a frozen backbone: features computed once, or again every epoch."""

import time

import jax
import numpy as np
import torch

from benchmarks.harness import IDLE_SECONDS, Result, Timing, times
from benchmarks.networks import (
    Case,
    Problem,
    check_same,
    make_problem,
    our_forward,
    torch_forward,
)
from benchmarks.torch_twin import channels_first, torch_twin
from jaxvision.data.loader import Batches
from jaxvision.metrics import make_cross_entropy
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.training.loop import fit
from jaxvision.training.state import create_state
from jaxvision.transfer import fit_head, make_feature_step

BACKBONE = "efficientnet_lite0"
BATCH_SIZE = 32
LEARNING_RATE = 1e-3

ONCE, EVERY, TORCH = (
    "jaxvision, features once",
    "jaxvision, every epoch",
    "torch, every epoch",
)


def run(*, quick: bool) -> Result:
    """Trains a head in each way, compiling included; logits are compared first."""
    epochs, count, size = (5, 64, 96) if quick else (25, 256, 128)
    problem = make_problem(BACKBONE, Case(count, (size, size, 3), 8))
    check_same(ONCE, [our_forward(problem)()], [torch_forward(problem)()])
    jax.clear_caches()
    contestants = {ONCE: _features_once, EVERY: _every_epoch, TORCH: _torch}
    losses, seconds = {}, {}
    for name, train in contestants.items():
        time.sleep(IDLE_SECONDS)
        began = time.perf_counter()
        losses[name] = train(problem, epochs)
        seconds[name] = Timing((time.perf_counter() - began,))
        jax.clear_caches()
    rows = [
        [
            name,
            f"{seconds[name].median:.1f}",
            times(seconds[name].ratio_to(seconds[TORCH])),
            f"{curve[0]:.3f}",
            f"{curve[-1]:.3f}",
        ]
        for name, curve in losses.items()
    ]
    return Result(
        "Transfer with a frozen backbone",
        f"{epochs} epochs of a head on `{BACKBONE}`, {count} images of {size}×{size} "
        f"in memory, batches of {BATCH_SIZE}, Adam; seconds from the first call on, "
        "compiling included. The losses are those of the first and the last epoch.",
        ("way", "seconds", "to torch", "first loss", "last loss"),
        rows,
        [
            {
                "way": name,
                "seconds": list(seconds[name].seconds),
                "epochs": epochs,
                "images": count,
                "size": size,
                "losses": losses[name],
            }
            for name in contestants
        ],
    )


def _features_once(problem: Problem, epochs: int) -> list[float]:
    backbone = {name: tree["backbone"] for name, tree in problem.variables.items()}
    compute = jax.jit(make_feature_step(problem.model, normalize=lambda x: x))
    features = [
        np.asarray(compute(backbone, {"image": images})[1])
        for images in np.split(problem.images, len(problem.images) // BATCH_SIZE)
    ]
    everything = np.arange(len(problem.labels))
    _, result = fit_head(
        problem.model,
        problem.variables,
        np.concatenate(features),
        problem.labels,
        {"train": everything, "val": everything[:0]},
        optim=OptimConfig("adam", LEARNING_RATE),
        loss=make_cross_entropy(),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        seed=0,
    )
    return [row["train_loss"] for row in result.history]


def _every_epoch(problem: Problem, epochs: int) -> list[float]:
    everything = np.arange(len(problem.labels))
    train = Batches.of_arrays(
        problem.images,
        problem.labels,
        everything,
        batch_size=BATCH_SIZE,
        seed=0,
        train=True,
    )
    tx = make_optimizer(
        OptimConfig("adam", LEARNING_RATE),
        steps_per_epoch=train.steps_per_epoch,
        epochs=epochs,
    )
    state = create_state(problem.variables, tx, seed=0, frozen=("backbone",))
    result = fit(
        problem.model,
        tx,
        make_cross_entropy(),
        state,
        train,
        normalize=lambda x: x,
        epochs=epochs,
    )
    return [row["train_loss"] for row in result.history]


def _torch(problem: Problem, epochs: int) -> list[float]:
    """The usual loop: the backbone in evaluation and without gradients."""
    model = torch_twin(problem.model, problem.variables, problem.images.shape[1:])
    model.eval().requires_grad_(False)
    head = model.get_submodule("head_logits").requires_grad_(True)
    optimizer = torch.optim.Adam(head.parameters(), LEARNING_RATE)
    images = channels_first(problem.images)
    labels = torch.from_numpy(problem.labels).long()
    losses = []
    for _ in range(epochs):
        total = 0.0
        for places in torch.randperm(len(labels)).split(BATCH_SIZE):
            optimizer.zero_grad()
            logits = model(images[places])
            loss = torch.nn.functional.cross_entropy(logits, labels[places])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(places)
        losses.append(total / len(labels))
    return losses
