"""Arrays in, matplotlib `Figure` out.

Figures are built on the `Figure` object itself: no window and no global state, so that
they can be drawn in any thread and on a machine without a screen. `demo=True` stamps a
figure as made from demo data.
"""

from jaxvision.plotting.curves import (
    WRITTEN_CLASSES,
    TransformPanel,
    confusion_matrix,
    curves_by_recipe,
    learning_curves,
    learning_rate_curve,
    reliability_diagram,
    roc_curves,
    transform_curves,
)
from jaxvision.plotting.images import (
    FieldPanel,
    ImageRow,
    gallery,
    image_grid,
    prediction_caption,
    receptive_field_maps,
)
from jaxvision.plotting.style import DEMO_STAMP, SPLITS, stamped
from jaxvision.report.formats import shorten

__all__ = [
    "DEMO_STAMP",
    "SPLITS",
    "WRITTEN_CLASSES",
    "FieldPanel",
    "ImageRow",
    "TransformPanel",
    "confusion_matrix",
    "curves_by_recipe",
    "gallery",
    "image_grid",
    "learning_curves",
    "learning_rate_curve",
    "prediction_caption",
    "receptive_field_maps",
    "reliability_diagram",
    "roc_curves",
    "shorten",
    "stamped",
    "transform_curves",
]
