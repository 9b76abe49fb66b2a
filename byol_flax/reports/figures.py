"""How charts look, and how one becomes an image without any display."""

from collections.abc import Callable

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Colours that colour-blind readers can tell apart (Okabe and Ito, 2008).
LEFT_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
RIGHT_COLOR = "#d55e00"
STYLE = {
  "axes.axisbelow": True,
  "axes.grid": True,
  "axes.spines.right": False,
  "axes.spines.top": False,
  "axes.titlelocation": "left",
  "axes.titlepad": 24,  # leaves a line for the legend
  "axes.titlesize": 11,
  "axes.titleweight": "bold",
  "figure.constrained_layout.h_pad": 0.12,
  "figure.constrained_layout.use": True,
  "figure.constrained_layout.w_pad": 0.12,
  "font.size": 9,
  "grid.color": "#e4e4e4",
  "grid.linewidth": 0.7,
  "legend.frameon": False,
  "lines.linewidth": 1.4,
  "lines.markersize": 4,
}


def render(
  size: tuple[float, float], draw: Callable[[Figure], None]
) -> np.ndarray:
  """Draws a chart, whatever style the user has set.

  Args:
    size: width and height in inches, of 100 pixels each.
    draw: draws into an empty figure.

  Returns:
    uint8 [H, W, 3].
  """
  with matplotlib.style.context(["default", STYLE]):
    figure = Figure(figsize=size, dpi=100)
    # With a canvas of its own the figure never looks for a display.
    canvas = FigureCanvasAgg(figure)
    draw(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
