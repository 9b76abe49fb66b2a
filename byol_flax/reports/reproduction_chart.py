"""Draws a reproduced ablation: the paper's numbers beside ours."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from byol_flax.reports import figures

_THEIRS, _OURS = figures.RIGHT_COLOR, figures.LEFT_COLORS[0]


def draw(report: Mapping[str, Any]) -> np.ndarray:
  """Draws a line for each row of a report of `reproduction.make`.

  The two sides have axes of their own, because they are not the same quantity.

  Returns:
    uint8 [H, W, 3].
  """
  rows = report["rows"]

  def drawn(figure: Figure) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(rows))
    left.set_yticks(places, [row["label"] for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    _paper(left, rows)
    left.set_title(f"Paper: {report['place']}", pad=10)
    left.set_xlabel("top-1, %")
    _ours(right, report)
    right.set_title(f"Ours: {report['scale']}", pad=10)

  return figures.render((11, 1.6 + 0.28 * len(rows)), drawn)


def _paper(axes: Axes, rows: list[Mapping[str, Any]]) -> None:
  """The paper's means and spreads."""
  for place, row in enumerate(rows):
    number = row["paper"]["top-1"]
    if number:
      axes.errorbar(
        number["mean"],
        place,
        xerr=number["spread"],
        fmt="o",
        color=_THEIRS,
        capsize=3,
      )


def _ours(axes: Axes, report: Mapping[str, Any]) -> None:
  """Our means and spreads, and each seed."""
  if not report["measures"]:
    return
  measure = report["measures"][0]
  axes.set_xlabel(f"{measure}, %")
  for place, row in enumerate(report["rows"]):
    found = row["ours"].get(measure)
    if not found:
      continue
    values = list(found["seeds"].values())
    axes.plot(values, [place] * len(values), "|", color=_OURS, ms=10)
    axes.errorbar(
      found["mean"],
      place,
      xerr=found["spread"] or 0,
      fmt="o",
      color=_OURS,
      capsize=3,
    )
