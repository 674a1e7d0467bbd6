"""Cross-validation: every image is classified by a head that has not seen it."""

import dataclasses

import numpy as np

from jaxvision.classifier import Evaluation
from jaxvision.data.dataset import DecodedDataset
from jaxvision.data.splits import make_folds
from jaxvision.errors import InputError
from jaxvision.metrics import negative_log_likelihood
from jaxvision.models import Network
from jaxvision.pretrained import Pretrained
from jaxvision.recipe import (
    Start,
    check_batch_size,
    extract_views,
    first_variables,
    make_card,
    make_loss,
)
from jaxvision.settings import Recipe
from jaxvision.transfer import fit_head, head_logits, solve_head


@dataclasses.dataclass(frozen=True)
class FoldEvaluation(Evaluation):
    """All images, each by the head that was trained on the other folds.

    fold: `[N]` int32, of each image.
    """

    fold: np.ndarray


def check_folds(recipe: Recipe) -> None:
    """Raises `InputError` for a recipe that cannot be cross-validated."""
    if recipe.method != "features":
        raise InputError("needs `method` features", setting="folds")


def cross_validate(
    start: Start,
    dataset: DecodedDataset,
    pretrained: Pretrained | None,
    *,
    folds: int,
    seed: int,
    progress: bool = True,
) -> FoldEvaluation:
    """Trains a head for each fold, on the others, and classifies all images.

    With several views of an image, its logits are their mean.

    Args:
      start: of a recipe with method features.
      dataset: in the start's preprocessing; its splits do not matter.
      pretrained: the weights of the start.
      folds: how many; classes are spread evenly over them.
      seed: of the folds, the initialization, the order of the images and dropout.
      progress: whether to show bars.

    Raises:
      InputError: more folds than images in a class.
    """
    recipe = start.recipe
    check_folds(recipe)
    check_batch_size(recipe, len(dataset.images))
    fold = make_folds(
        folds,
        seed=seed,
        images=dataset.images,
        labels=dataset.labels.tolist(),
        groups=dataset.groups,
    )
    model = make_card(start, dataset.classes).create_model()
    assert isinstance(model, Network)
    variables = first_variables(recipe, model, dataset, pretrained, seed)
    features = extract_views(recipe, model, variables, dataset, progress=progress)
    logits = np.zeros((len(fold), len(dataset.classes)), np.float32)
    for number in range(folds):
        train = np.flatnonzero(fold != number).astype(np.int32)
        if recipe.solved:
            trained = solve_head(
                model,
                variables,
                features,
                dataset,
                train,
                solver=recipe.solver,
                seed=seed,
            )
        else:
            trained, _ = fit_head(
                model,
                variables,
                features,
                dataset.labels,
                {"train": train, "val": train[:0]},
                optim=recipe.optim,
                schedule=recipe.schedule,
                loss=make_loss(recipe, dataset.labels[train], len(dataset.classes)),
                epochs=recipe.epochs,
                batch_size=recipe.batch_size,
                seed=seed,
                select=recipe.select,
                ema_decay=recipe.ema_decay,
            )
        held_out = fold == number
        logits[held_out] = head_logits(model, trained, features[:, held_out])
    correct = logits.argmax(-1) == dataset.labels
    return FoldEvaluation(
        "fold",
        dataset.classes,
        tuple(dataset.images),
        dataset.labels,
        logits,
        negative_log_likelihood(logits, dataset.labels),
        float(np.mean(correct)),
        fold,
    )
