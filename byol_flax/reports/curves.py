"""The curves of a run, as PNG."""

import dataclasses
import fnmatch
import itertools
import json
from collections.abc import Sequence

import numpy as np
from etils import epath
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from byol_flax.reports import figures, png
from input_pipeline.errors import UsageError

# Series name -> values [n, 2] of (step, value).
Series = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Axis:
  """One vertical axis of a panel.

  Args:
    label: what the values are.
    metrics: names of the curves, or patterns of names such as "*/top1".
    limits: lowest and highest value shown, None to follow the values.
    percent: whether fractions are shown as percentages.
  """

  label: str
  metrics: tuple[str, ...]
  limits: tuple[float | None, float | None] = (None, None)
  percent: bool = False


# Title, left axis and right axis of each panel, in reading order. An axis
# begins at zero if it matters how close to zero its values are.
PANELS: tuple[tuple[str, Axis, Axis | None], ...] = (
  ("BYOL loss", Axis("sum of both directions", ("train/byol_loss",)), None),
  (
    "Classification",
    Axis("top-1 accuracy", ("train/top1", "*/top1"), percent=True),
    None,
  ),
  (
    "Signs of collapse",
    Axis("projection std", ("train/projection_std",), (0, None)),
    Axis("effective rank", ("train/effective_rank",), (0, None)),
  ),
  (
    "Schedules",
    Axis("learning rate", ("train/learning_rate",), (0, None)),
    Axis("target decay τ", ("train/target_decay",)),
  ),
  (
    "Size of the updates",
    Axis("gradient norm", ("train/grad_norm",), (0, None)),
    Axis("online to target distance", ("train/online_target_distance",)),
  ),
  (
    "Throughput",
    Axis("images per second", ("time/images_per_second",), (0, None)),
    Axis("time waiting for data", ("time/data_wait_fraction",), (0, 1), True),
  ),
)


def training_curves(metrics_path: str, out_path: str) -> None:
  """Draws the record of a run as six panels over steps.

  Args:
    metrics_path: the run's `metrics.jsonl`; it may still be growing.
    out_path: PNG to write. Equal records give equal files.

  Raises:
    UsageError: there is no record at `metrics_path`. A metric absent from the
      record is no error: its panel says so.
  """
  series = read_metrics(metrics_path)

  def draw(figure: Figure) -> None:
    for axes, panel in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
      _draw_panel(axes, series, *panel)

  png.save_png(out_path, figures.render((15, 8), draw))


def read_metrics(path: str) -> Series:
  """Reads `metrics.jsonl`: metric -> float64 [n, 2] of (step, value)."""
  source = epath.Path(path)
  if not source.exists():
    raise UsageError(
      f"Expected the record of a run at {path} and found no file. Give the "
      "workdir of a run that has reported at least once."
    )
  points: dict[str, list[tuple[float, float]]] = {}
  for line in source.read_text().splitlines():
    try:
      record = json.loads(line)
    except ValueError:  # The run is writing this line now.
      continue
    step = record.pop("step")
    record.pop("wall_time")
    if record.pop("kind", None) == "note":  # older runs have no kinds
      continue
    for name, value in record.items():
      points.setdefault(name, []).append((step, float(value)))
  return {name: np.array(pairs) for name, pairs in points.items()}


def _find(series: Series, axis: Axis) -> list[str]:
  """Names in `series` that belong on `axis`, each once."""
  names = sorted(series)
  found = (fnmatch.filter(names, metric) for metric in axis.metrics)
  return list(dict.fromkeys(itertools.chain.from_iterable(found)))


def _draw_panel(
  axes: Axes, series: Series, title: str, left: Axis, right: Axis | None
) -> None:
  """Draws one panel; if none of its metrics exist, the panel says so."""
  axes.set_title(title)
  lines = _draw_axis(axes, series, left, figures.LEFT_COLORS)
  if right is not None and _find(series, right):
    twin = axes.twinx()
    twin.grid(False)
    twin.spines.right.set_visible(True)
    lines += _draw_axis(twin, series, right, (figures.RIGHT_COLOR,))
  if not lines:
    axes.set_xticks([])
    axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center")
    return
  # All panels show the same range of steps, so that they can be compared.
  last = max(1, *(values[:, 0].max() for values in series.values()))
  axes.set_xlim(-0.02 * last, 1.02 * last)
  axes.set_xlabel("step")
  round_steps = ticker.MaxNLocator(6, steps=[1, 2, 5, 10], integer=True)
  axes.xaxis.set_major_locator(round_steps)
  axes.xaxis.set_major_formatter(ticker.FuncFormatter(_tick))
  if len(lines) <= 2:  # They fit on one line, above the curves.
    axes.legend(
      handles=lines, loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=2
    )
  else:
    axes.legend(handles=lines, loc="best")


def _draw_axis(
  axes: Axes, series: Series, axis: Axis, colors: Sequence[str]
) -> list[Line2D]:
  """Draws the metrics of one vertical axis and returns their lines."""
  lines: list[Line2D] = []
  for name, color in zip(_find(series, axis), itertools.cycle(colors)):
    steps, values = series[name].T
    values = np.where(np.isfinite(values), values, np.nan)
    # A curve of one point, or of a few, shows nothing without markers.
    marker = "o" if len(steps) <= 30 else ""
    lines += axes.plot(steps, values, marker=marker, color=color, label=name)
  if not lines:
    axes.set_yticks([])  # A scale with nothing on it would mislead.
    return lines
  axes.set_ylabel(axis.label)
  axes.set_ylim(*axis.limits)
  if axis.percent:
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(xmax=1))
  else:
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(_tick))
  return lines


def _tick(value: float, position: int | None) -> str:
  """A tick's label, with thousands apart and no trailing zeros."""
  del position
  return f"{value:,.6g}"
