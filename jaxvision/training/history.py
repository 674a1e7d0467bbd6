"""What the rows of a training's history say: which epoch is best, and when to end."""

import math
from collections.abc import Sequence

from jaxvision.typing import Row

WORST = (-math.inf, -math.inf)
"""The score of an epoch whose figures are not finite."""


def val_score(row: Row) -> tuple[float, float]:
    """How good an epoch is: its validation accuracy, then its lower loss.

    Args:
      row: of the history.

    Returns:
      A pair to compare; `WORST` where a figure is missing or not finite.
    """
    accuracy = row.get("val_accuracy", math.nan)
    loss = row.get("val_loss", math.nan)
    if not (math.isfinite(accuracy) and math.isfinite(loss)):
        return WORST
    return accuracy, -loss


def end_reason(history: Sequence[Row], *, epochs: int, patience: int | None) -> str:
    """Why training ends after these epochs, in words; "" where it goes on.

    Args:
      history: a row an epoch.
      epochs: at most this many.
      patience: epochs without a better one on the validation images after which
        training ends; None, or no such images: it does not.
    """
    if patience is not None and history and "val_loss" in history[-1]:
        scores = [val_score(row) for row in history]
        best = max(scores)
        best_epoch = scores.index(best) + 1 if best > WORST else 0
        if len(history) - best_epoch >= patience:
            return f"no better epoch in {patience}"
    if len(history) < epochs:
        return ""
    return "1 epoch" if epochs == 1 else f"{epochs} epochs"
