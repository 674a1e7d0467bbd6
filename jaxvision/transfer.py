"""Transfer learning: features of a frozen backbone, computed once; heads on them."""

import dataclasses
import hashlib
import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvision import models
from jaxvision.data.dataset import DecodedDataset
from jaxvision.data.loader import Batches
from jaxvision.data.splits import deal_folds
from jaxvision.data.transforms import AugmentConfig, check_on_host
from jaxvision.errors import InputError
from jaxvision.metrics import Loss, class_logits
from jaxvision.models import Backbone, Network, pool_features
from jaxvision.optim import (
    OptimConfig,
    ScheduleConfig,
    make_optimizer,
    schedule_factor,
)
from jaxvision.pretrained import Pretrained, fit_into, fresh_layers, load
from jaxvision.settings import Solver
from jaxvision.storage import (
    file_sha256,
    remove_leftovers,
    remove_oldest,
    write_atomically,
    writing,
)
from jaxvision.training.checkpoint import CheckpointFolder, flatten
from jaxvision.training.distributed import broadcast, broadcast_arrays, is_main_process
from jaxvision.training.loop import Callback, FitResult, Select, fit
from jaxvision.training.parallel import Runner, keep_programs
from jaxvision.training.state import create_state, init_variables
from jaxvision.training.step import EvalStep, Normalize
from jaxvision.typing import Batch, PyTree

MOST_KEPT = 8 * 2**30
"""Bytes of features in the cache."""

INNER_FOLDS = 5
"""Of the training images, by which logistic regression chooses its penalty."""


def create_model(
    name: str,
    num_classes: int,
    *,
    pretrained: bool = True,
    image_size: int | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[Network, dict[str, PyTree]]:
    """A network and its variables, for a training loop of one's own.

        model, variables = create_model("efficientnet_lite0", num_classes=5)
        logits = model.apply(variables, images, train=False)  # [B, 5] float32

    Args:
      name: pretrained weights, a key of `SOURCES`; or, without them, of `MODELS`.
      num_classes: width of the logits; the head is new.
      pretrained: whether the backbone has published weights.
      image_size: height and width of the images, which a dense network depends on;
        None: what the weights were trained on, or 224.
      seed: of what is fresh.
      **options: further arguments of `models.create_model`. Weights without their
        network's dense layers end before them unless `stop_at` says otherwise.

    Returns:
      The Flax module, and `params` and `batch_stats`.

    Raises:
      InputError: no such network or weights, or they are out of reach.
    """
    if not pretrained:
        model = models.create_model(name, num_classes, **options)
        size = image_size or 224
        return model, init_variables(model, seed, (size, size, 3))
    weights = load(name)
    options = {"stop_at": weights.source.last_layer, **options}
    model = models.create_model(weights.source.model, num_classes, **options)
    size = weights.source.preprocessing.size
    shape = (image_size or size[0], image_size or size[1], 3)
    return model, init_pretrained(model, weights, seed, shape)


def init_pretrained(
    model: Network, weights: Pretrained, seed: int, image_shape: tuple[int, int, int]
) -> dict[str, PyTree]:
    """Variables with the published backbone; the head and what it lacks are fresh.

    Args:
      model: a network of `weights.source`.
      weights: of the backbone.
      seed: of what is fresh.
      image_shape: (H, W, C) of one image.

    Raises:
      InputError: the weights do not fit.
    """
    fresh = fresh_layers(weights.source, model.stop_at)
    parts = ["head", *(f"backbone/{layer}" for layer in fresh)]
    template = init_variables(model, seed, image_shape, only=parts)
    variables, _ = fit_into(weights.variables, template, fresh=fresh)
    return variables


class Features(Backbone):
    """The backbone of a network whose input is features already: it does nothing."""

    def layers(self, train: bool) -> list[tuple[str, Callable]]:
        return []


def head_alone(model: Network) -> Network:
    """The network without its backbone: the same head, on features."""
    backbone = Features(
        bn_axis_name=model.backbone.bn_axis_name, dtype=model.backbone.dtype
    )
    return model.clone(backbone=backbone, stop_at=None, pooling=None)


def join(backbone: dict[str, PyTree], head: dict[str, PyTree]) -> dict[str, PyTree]:
    """Variables of a whole network from those of two.

    Args:
      backbone: variables that hold the backbone, such as pretrained ones.
      head: variables that hold the head, such as `head_alone` was trained to.
    """
    parts = {"backbone": backbone, "head": head}
    return {
        collection: {
            part: variables[collection][part]
            for part, variables in parts.items()
            if part in variables.get(collection, {})
        }
        for collection in ("params", "batch_stats")
    }


def extract_features(
    model: Network,
    variables: dict[str, PyTree],
    dataset: DecodedDataset,
    *,
    batch_size: int = 32,
    augment: AugmentConfig | None = None,
    seed: int = 0,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    runner: Runner | None = None,
) -> np.ndarray:
    """What the head of a network sees of every image, in evaluation.

    One pass of the backbone up to `model.stop_at`, pooled as in `model.pooling`; a
    second call with the same weights, images and preprocessing reads the file that the
    first one left. Of several processes that train together all have to call it, and
    all get all features.

    Args:
      model: network; only its backbone runs.
      variables: `params` and `batch_stats` with a `backbone`.
      dataset: images, in the network's own preprocessing.
      batch_size: images at once, over all devices.
      augment: random changes of each image; none if None.
      seed: of those changes.
      cache: folder for the file, which holds up to `MOST_KEPT` bytes; None: none is
        written. A file that can't be written is named on standard error.
      progress: told (images done, images in all).
      runner: on which devices; None: all, those of other processes too.

    Returns:
      `[N, F]` float32, row i for image i of the data set.
    """
    if augment is not None:
        check_on_host(augment, "features")
    runner = runner or Runner.all_devices()
    runner.check_batch_size(batch_size)
    backbone = {
        name: tree.get("backbone", {})
        for name, tree in variables.items()
        if name in ("params", "batch_stats")
    }
    path = None
    if cache is not None:
        changes = None if augment is None else [dataclasses.asdict(augment), seed]
        key = _key(model, backbone, dataset, changes)
        path = cache / f"{key}.npy"
        found = _read(path) if is_main_process() else None
        if broadcast(found is not None):
            found = {} if found is None else {"features": found}
            return broadcast_arrays(found)["features"]
    compute = _feature_program(runner, model, dataset.preprocessing)
    placed = runner.replicate(backbone)
    everything = np.arange(len(dataset.images), dtype=np.int32)
    batches = dataset.batches(
        everything,
        batch_size=batch_size,
        train=False,
        augment=augment,
        seed=seed,
        **runner.shard,
    )
    rows: list[np.ndarray] = []
    for batch in batches.iterate():
        _, computed = compute(placed, runner.place_batch(batch))
        rows.append(np.asarray(computed))
        if progress is not None:
            progress(min(len(rows) * batch_size, len(everything)), len(everything))
    features = np.concatenate(rows)[: len(everything)]
    if path is not None and is_main_process():
        try:
            _write(path, features)
        except InputError as error:  # they are here all the same
            print(f"warning: features are not kept: {error}", file=sys.stderr)
    return features


def fit_head(
    model: Network,
    variables: dict[str, PyTree],
    features: np.ndarray,
    labels: np.ndarray,
    splits: Mapping[str, np.ndarray],
    *,
    optim: OptimConfig,
    schedule: ScheduleConfig | None = None,
    loss: Loss,
    epochs: int,
    batch_size: int,
    seed: int,
    select: Select = "best",
    ema_decay: float = 0.0,
    patience: int | None = None,
    checkpoints: CheckpointFolder | None = None,
    save_seconds: float = 30.0,
    callback: Callback | None = None,
    runner: Runner | None = None,
) -> tuple[dict[str, PyTree], FitResult]:
    """Trains a network's head on features; the backbone is neither run nor changed.

    Args:
      model: the whole network.
      variables: of the whole network; its head is where training begins.
      features: `[N, F]` float32 from `extract_features`; or `[V, N, F]` of several
        views of each image: training has all of them, in a V-th of the epochs,
        validation the first.
      labels: `[N]` int32.
      splits: "train" and "val" -> indices of images; without validation images the
        last epoch is the result.
      ema_decay: as of `Recipe`.

    The others are those of `fit`.

    Returns:
      The variables of the whole network with the trained head, and how training went.
    """
    head = head_alone(model)
    runner = runner or Runner.all_devices()
    splits = {"train": splits["train"], "val": splits["val"]}
    if features.ndim == 3:
        views, count, width = features.shape
        features, labels = features.reshape(-1, width), np.tile(labels, views)
        splits["train"] = np.concatenate(
            [splits["train"] + np.int32(view * count) for view in range(views)]
        )
        epochs = -(-epochs // views)

    def batches(split: str) -> Batches:
        return Batches.of_arrays(
            features,
            labels,
            splits[split],
            batch_size=batch_size,
            seed=seed,
            train=split == "train",
            **runner.shard,
        )

    train = batches("train")
    val = batches("val") if len(splits["val"]) else None
    lengths = {"steps_per_epoch": train.steps_per_epoch, "epochs": epochs}
    tx = make_optimizer(optim, schedule, **lengths)
    factor = schedule_factor(schedule or ScheduleConfig(), **lengths)
    result = fit(
        head,
        tx,
        loss,
        create_state(join({}, variables), tx, seed=seed, ema_decay=ema_decay or None),
        train,
        normalize=unchanged,
        epochs=epochs,
        val=val,
        select=select,
        patience=patience,
        checkpoints=checkpoints,
        save_seconds=save_seconds,
        learning_rate_at=lambda step: optim.learning_rate * float(factor(step)),
        callback=callback,
        runner=runner,
    )
    return join(variables, result.state.variables), result


def unchanged(features: jax.Array) -> jax.Array:
    """The preprocessing of a head's input."""
    return features


@keep_programs
def _feature_program(runner: Runner, model: Network, normalize: Normalize) -> EvalStep:
    """Kept for the next seed, or for other views of the images."""
    return runner.compile_eval(make_feature_step(model, normalize=normalize))


def solve_head(
    model: Network,
    variables: dict[str, PyTree],
    features: np.ndarray,
    dataset: DecodedDataset,
    indices: np.ndarray,
    *,
    solver: Solver,
    seed: int,
) -> dict[str, PyTree]:
    """Fits a network's head to features at once, in closed form or to convergence.

    Several processes all get what the first of them computes.

    Args:
      model: the whole network, whose head is one dense layer.
      variables: of the whole network.
      features: `[V, N, F]` float32, views of every image; an image is left out with all
        of its views, and with its copies or the other of its pair.
      dataset: the N images.
      indices: `[n]` of those to learn from.
      solver: "ridge" or "logistic", see `linear_heads`.
      seed: of the folds by which logistic regression chooses its penalty.

    Returns:
      The variables of the whole network with the head.
    """
    from jaxvision.linear_heads import fit_logistic, fit_ridge  # imports SciPy

    found = {}
    if is_main_process():
        views, _, width = features.shape
        rows = features[:, indices].reshape(-1, width)
        labels = np.tile(dataset.labels[indices], views)
        groups = _groups_within(dataset, indices)
        if solver == "ridge":
            blocks = np.arange(len(indices))
            for group in groups:
                blocks[group] = group[0]
            blocks = np.tile(blocks, views)
            head = fit_ridge(rows, labels, len(dataset.classes), blocks=blocks)
        else:
            fold = deal_folds(
                INNER_FOLDS,
                seed=seed,
                images=[dataset.images[index] for index in indices],
                labels=dataset.labels[indices].tolist(),
                groups=groups,
            )
            fold = np.tile(fold, views)
            head = fit_logistic(rows, labels, len(dataset.classes), fold=fold)
        kernel, bias = head.kernel, head.bias
        if model.num_classes == 1:
            kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
        found = {
            "kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)
        }  # fmt: skip
    dense = broadcast_arrays(found)
    return join(variables, {"params": {"head": {"logits": dense}}})


def _groups_within(dataset: DecodedDataset, indices: np.ndarray) -> list[list[int]]:
    """Copies and pairs among some images, by their places in `indices`."""
    place_of = {int(index): place for place, index in enumerate(indices)}
    groups = (
        [place_of[index] for index in group if index in place_of]
        for group in dataset.groups
    )
    return [group for group in groups if len(group) > 1]


def head_logits(
    model: Network, variables: dict[str, PyTree], features: np.ndarray
) -> np.ndarray:
    """What a network's head makes of features: the mean over the views of each image.

    Args:
      model: the whole network.
      variables: of the whole network.
      features: `[V, N, F]` float32.

    Returns:
      `[N, K]` float32 logits; of a network of one logit two, see
      `metrics.class_logits`.
    """
    views, count, width = features.shape
    logits = head_alone(model).apply(
        join({}, variables), features.reshape(-1, width), train=False
    )
    logits = np.asarray(class_logits(jnp.asarray(logits)))
    return logits.reshape(views, count, -1).mean(0)


def make_feature_step(model: Network, *, normalize: Normalize) -> EvalStep:
    """(backbone's variables, batch) -> ({}, features `[B, F]` float32).

    Pure, with the shape of an evaluation step, so that a `Runner` can run it.
    """
    backbone: nn.Module = model.backbone

    def feature_step(
        variables: dict[str, PyTree], batch: Batch
    ) -> tuple[dict, jax.Array]:
        images = normalize(batch["image"])
        x = backbone.apply(variables, images, train=False, stop_at=model.stop_at)
        x = cast(jax.Array, x)
        return {}, pool_features(x, model.pooling).astype(np.float32)

    return feature_step


def _key(
    model: Network,
    backbone: dict[str, PyTree],
    dataset: DecodedDataset,
    changes: list[Any] | None,
) -> str:
    """One name for everything that the features depend on."""
    digest = hashlib.sha256()
    for name, array in sorted(flatten(backbone).items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    facts: dict[str, Any] = {
        "weights": digest.hexdigest(),
        "backbone": repr(model.backbone.clone(bn_axis_name=None)),
        "stop_at": model.stop_at,
        "preprocessing": dataset.preprocessing.to_dict(),
        "data": dataset.fingerprint,
        # Another backend computes other last digits.
        "backend": [jax.default_backend(), jax.__version__],
    }
    if model.pooling is not None:
        facts["pooling"] = model.pooling
    if changes is not None:
        facts["changes"] = changes
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path) -> np.ndarray | None:
    """The array, or None if there is none or it is not what was written."""
    digest = path.with_suffix(".sha256")
    if not path.is_file() or not digest.is_file():
        return None
    if file_sha256(path) != digest.read_text():
        return None
    return np.load(path, allow_pickle=False)


def _write(path: Path, features: np.ndarray) -> None:
    """The digest comes last: an array without its own is not read. What has not been
    read for longest goes."""
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    content = buffer.getvalue()
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    write_atomically(path, content)
    digest = hashlib.sha256(content).hexdigest()
    write_atomically(path.with_suffix(".sha256"), digest.encode())
    with writing(path.parent):
        remove_oldest(path.parent, MOST_KEPT)
