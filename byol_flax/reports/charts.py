"""Charts of accuracy: over penalties, and over the number of labels."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from byol_flax.reports import figures

_OURS, _THEIRS, _MARK = (
  figures.LEFT_COLORS[0],
  figures.RIGHT_COLOR,
  figures.LEFT_COLORS[2],
)
# (x, accuracy in [0, 1])
Points = Sequence[tuple[float, float]]


def penalties(
  path: Points, *, chosen: float, test: float, metric: str
) -> np.ndarray:
  """Draws what was found on valid with each penalty.

  Args:
    path: (penalty, value on valid).
    chosen: the penalty that was chosen.
    test: what the chosen one gives on test.
    metric: name of the values.

  Returns:
    uint8 [H, W, 3].
  """

  def draw(figure: Figure) -> None:
    axes = figure.subplots()
    _line(axes, path, "on valid", _OURS, ".")
    axes.axvline(chosen, color=_MARK, linestyle=":", label="chosen")
    axes.plot([chosen], [test], "*", color=_THEIRS, ms=12, label="on test")
    _finish(axes, "penalty", metric)
    axes.set_title(
      f"{test:.1%} on test with penalty {chosen:.2g}, of {len(path)}", pad=10
    )

  return figures.render((8, 5), draw)


def label_efficiency(
  ours: Mapping[str, Points],
  theirs: Points = (),
  *,
  title: str,
  labels: str = "labelled images",
) -> np.ndarray:
  """Draws accuracy over the number of labels.

  Args:
    ours: name of a curve -> (labels, top-1 on test).
    theirs: the same of the paper, if it has any.
    title: says what was trained.
    labels: what x counts.

  Returns:
    uint8 [H, W, 3].
  """

  def draw(figure: Figure) -> None:
    axes = figure.subplots()
    colors = itertools.cycle(figures.LEFT_COLORS)
    for (name, points), color in zip(ours.items(), colors, strict=False):
      _line(axes, points, name, color, "o")
    if theirs:
      _line(axes, theirs, "paper", _THEIRS, "s", linestyle="--")
    _finish(axes, labels, "top-1 on test")
    # Few points: each is named, and nothing else.
    ticks = sorted({x for points in ours.values() for x, _ in points})
    axes.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_title(title, pad=10)

  return figures.render((8, 5), draw)


def _line(
  axes: Axes,
  points: Points,
  label: str,
  color: str,
  marker: str,
  linestyle: str = "-",
) -> None:
  """Draws points by rising x."""
  x, y = np.array(sorted(points), float).T
  axes.plot(x, y, marker=marker, color=color, label=label, linestyle=linestyle)


def _finish(axes: Axes, x: str, y: str) -> None:
  """Gives the axes their scales and names."""
  axes.set_xscale("log")
  axes.set_xlabel(x)
  axes.set_ylabel(y)
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(xmax=1))
  axes.legend()
