"""Pictures of networks and of training runs.

`draw` writes SVG or DOT without other packages; the others need matplotlib (`pip install tinyconv[plots]`).
"""

from tinyconv.plots.graph import draw
from tinyconv.plots.grids import image_grid, scatter
from tinyconv.plots.network import activations, filters, saliency
from tinyconv.plots.training import learning_curves, training_report
from tinyconv.plots.unfold import unfold_view

__all__ = [
    "activations",
    "draw",
    "filters",
    "image_grid",
    "learning_curves",
    "saliency",
    "scatter",
    "training_report",
    "unfold_view",
]
