"""Does an explanation depend on what the network has learned? (arXiv:1810.03292)

A map that stays the same when the network's head is drawn anew shows the image and
not the reasons of the network.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import stats

from jaxvision.explain.network import TrainedNetwork
from jaxvision.training.state import init_variables


def randomize_head(network: TrainedNetwork, seed: int = 0) -> TrainedNetwork:
    """The network with a head that has learned nothing; the backbone is the same."""
    drawn = init_variables(network.model, seed, network.image_shape, only=["head"])
    variables = {
        collection: {
            part: drawn[collection][part] if part == "head" else values
            for part, values in parts.items()
        }
        for collection, parts in network.variables.items()
    }
    return dataclasses.replace(network, variables=variables)


def rank_correlation(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of two explanations of each image.

    Args:
      maps, others: `[B, ...]` of one shape; their absolute values are ranked, summed
        over channels where there are any, as they are shown in gray.

    Returns:
      `[B]`: 1 where the order of the pixels is the same, 0 where nothing is shared;
      NaN where a map is the same everywhere.
    """
    pairs = zip(_strength(maps), _strength(others), strict=True)
    return np.array([_spearman(one, other) for one, other in pairs])


def _strength(maps: np.ndarray) -> np.ndarray:
    """`[B, H * W]`."""
    maps = np.abs(np.asarray(maps, np.float64))
    maps = maps.sum(-1) if maps.ndim == 4 else maps
    return maps.reshape(len(maps), -1)


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    result: Any = stats.spearmanr(one, other)  # whose type SciPy does not state
    return float(result.statistic)
