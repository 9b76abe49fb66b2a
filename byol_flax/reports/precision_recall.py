"""Precision over recall of a detector: one curve for each class."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps, ticker
from matplotlib.figure import Figure

from byol_flax.reports import figures

_MOST_IN_COLUMN = 25  # names of a legend


def picture(
  curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]],
) -> np.ndarray:
  """Draws the curves of all classes at IoU 0.5.

  Args:
    curves: name of a class -> recall [n], rising, precision [n], and average
      precision, all in [0, 1]; NaN for a class without true boxes, which has no
      curve.

  Returns:
    uint8 [H, W, 3].
  """
  known = {name: x for name, x in curves.items() if not math.isnan(x[2])}
  if len(known) <= 10:
    colors = colormaps["tab10"](np.arange(len(known)))
  else:
    colors = colormaps["gist_rainbow"](np.linspace(0, 1, len(known)))

  def draw(figure: Figure) -> None:
    axes = figure.subplots()
    for color, (name, (recall, precision, average)) in zip(
      colors, known.items(), strict=True
    ):
      axes.plot(
        recall,
        precision,
        color=color,
        # A curve of one point shows nothing without a marker.
        marker="o" if len(recall) == 1 else "",
        label=f"{name}: {average:.1%}",
      )
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_formatter(ticker.PercentFormatter(xmax=1))
    mean = np.mean([x[2] for x in known.values()]) if known else math.nan
    axes.set_title(
      f"Mean average precision {mean:.1%} of {len(known)} classes at IoU 0.5",
      pad=10,
    )
    if known:
      axes.legend(
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        ncols=math.ceil(len(known) / _MOST_IN_COLUMN),
        title="average precision",
      )

  columns = max(1, math.ceil(len(known) / _MOST_IN_COLUMN))
  return figures.render((7 + 2 * columns, 6), draw)
