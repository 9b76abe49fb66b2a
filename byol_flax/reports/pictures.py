"""Pictures for people: grids of views and the curves of a run, as PNG."""

import dataclasses
import fnmatch
import io
import itertools
import json
import math
from collections.abc import Sequence

import matplotlib.style
import numpy as np
from etils import epath
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from input_pipeline import whole_files
from input_pipeline.errors import UsageError

ROWS = ("original", "view 1", "view 2")
_MADE_BY = ("Software", "byol-flax")  # a text within each PNG file
GAP = 4  # pixels between cells
SMALLEST_CELL = 96  # pixels; smaller images are enlarged to at least this

# Series name -> values [n, 2] of (step, value).
Series = dict[str, np.ndarray]


def view_grid(
  original: Sequence[np.ndarray], view1: np.ndarray, view2: np.ndarray
) -> np.ndarray:
  """Shows each image above its two views, one column per image.

  Args:
    original: N images, uint8 [h, w, 3] of any sizes; each is fitted into its
      cell with its aspect ratio kept.
    view1: uint8 [N, S, S, 3].
    view2: uint8 [N, S, S, 3].

  Returns:
    uint8 [H, W, 3]. `cell_box` says where each image is. Views under 96 pixels
    are enlarged by a whole factor, without smoothing.
  """
  if view1.shape != view2.shape or len(original) != len(view1):
    raise ValueError(
      "view_grid draws two views of one size for every original: there are "
      f"{len(original)} originals, view1 is {view1.shape}, view2 is "
      f"{view2.shape}."
    )
  factor = math.ceil(SMALLEST_CELL / view1.shape[1])
  size = factor * view1.shape[1]
  rows, columns = cell_box(len(ROWS) - 1, len(view1) - 1, size)
  canvas = Image.new("RGB", (columns.stop + GAP, rows.stop + GAP), "white")
  _draw_labels(canvas, size)
  grid = np.array(canvas)
  for column in range(len(view1)):
    grid[cell_box(0, column, size)] = letterbox(original[column], size)
    grid[cell_box(1, column, size)] = enlarge(view1[column], factor)
    grid[cell_box(2, column, size)] = enlarge(view2[column], factor)
  return grid


def cell_box(row: int, column: int, size: int) -> tuple[slice, slice]:
  """Rows and columns of pixels of one cell in a grid of `size`-pixel cells."""
  top = GAP + row * (size + GAP)
  left = _gutter(size) + column * (size + GAP)
  return slice(top, top + size), slice(left, left + size)


def _font_size(size: int) -> int:
  """Height of the labels beside `size`-pixel cells, in pixels."""
  return max(14, size // 11)


def _gutter(size: int) -> int:
  """Width of the column of labels, in pixels."""
  return 5 * _font_size(size)


def _draw_labels(canvas: Image.Image, size: int) -> None:
  """Writes the name of each row to the left of it, half way up."""
  draw = ImageDraw.Draw(canvas)
  font = ImageFont.load_default(_font_size(size))
  for row, label in enumerate(ROWS):
    middle = cell_box(row, 0, size)[0].start + size // 2
    right = _gutter(size) - 2 * GAP
    draw.text((right, middle), label, fill="#404040", font=font, anchor="rm")


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
  """Repeats each pixel: [H, W, 3] -> [factor*H, factor*W, 3]."""
  return image.repeat(factor, axis=0).repeat(factor, axis=1)


def letterbox(image: np.ndarray, size: int) -> np.ndarray:
  """Fits uint8 [h, w, 3] into the middle of a grey uint8 [size, size, 3]."""
  height, width = image.shape[:2]
  scale = size / max(height, width)
  fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
  # Pixels of a small image stay visible; a large one is reduced smoothly.
  smooth, blocks = Image.Resampling.LANCZOS, Image.Resampling.NEAREST
  resized = Image.fromarray(image).resize(
    fitted, blocks if scale >= 1 else smooth
  )
  cell = Image.new("RGB", (size, size), "#e8e8e8")
  cell.paste(resized, ((size - fitted[0]) // 2, (size - fitted[1]) // 2))
  return np.array(cell)


def save_png(path: str, image: np.ndarray) -> None:
  """Writes uint8 [H, W, 3] to `path`; no reader ever sees half a file."""
  epath.Path(path).parent.mkdir(parents=True, exist_ok=True)
  about = PngImagePlugin.PngInfo()
  about.add_text(*_MADE_BY)
  encoded = io.BytesIO()
  Image.fromarray(image).save(encoded, format="png", pnginfo=about)
  whole_files.write_bytes(path, encoded.getvalue())


def check_ours(path: str) -> None:
  """Checks, before the work, that `save_png` may write there.

  Raises:
    UsageError: there is a file that `save_png` did not make.
  """
  target = epath.Path(path)
  if not target.exists():
    return
  try:
    with Image.open(io.BytesIO(target.read_bytes()), formats=("PNG",)) as image:
      key, value = _MADE_BY
      if image.info.get(key) == value:
        return
  except (OSError, ValueError):
    pass
  raise UsageError(
    f"Cannot write {path}: that file is there and was not written by byol; "
    "move it away, or give another --out."
  )


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
  with matplotlib.style.context(["default", STYLE]):
    figure = Figure(figsize=(15, 8), dpi=100)
    # With a canvas of its own the figure never looks for a display.
    canvas = FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
      _draw_panel(axes, series, *panel)
    canvas.draw()
    save_png(out_path, np.asarray(canvas.buffer_rgba())[..., :3])


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
    record.pop("kind", None)  # older runs have none
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
  lines = _draw_axis(axes, series, left, LEFT_COLORS)
  if right is not None and _find(series, right):
    twin = axes.twinx()
    twin.grid(False)
    twin.spines.right.set_visible(True)
    lines += _draw_axis(twin, series, right, (RIGHT_COLOR,))
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
