import json

import matplotlib.style
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from byol_flax.reports import pictures
from input_pipeline.errors import UsageError

RANDOM = np.random.default_rng(0)
GREY = (232, 232, 232)


def random_images(*shape):
  return RANDOM.integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize(
  ("side", "cell", "count"),
  [(16, 96, 3), (32, 96, 16), (28, 112, 1), (100, 100, 2)],
)
def test_every_view_stands_in_its_cell(side, cell, count):
  view1, view2 = random_images(2, count, side, side)
  originals = list(random_images(count, side, side))
  grid = pictures.view_grid(originals, view1, view2)
  factor = cell // side
  for row, images in enumerate((originals, view1, view2)):
    for column, image in enumerate(images):
      box = grid[pictures.cell_box(row, column, cell)]
      # Nearest neighbour: each pixel became a square of one colour.
      np.testing.assert_array_equal(
        box, np.kron(image, np.ones((factor, factor, 1), np.uint8))
      )


def test_cells_do_not_touch_and_nothing_else_is_drawn_among_them():
  grid = pictures.view_grid(
    list(random_images(2, 16, 16)), *random_images(2, 2, 16, 16)
  )
  rows, columns = pictures.cell_box(0, 0, 96)
  assert grid.shape == (3 * 96 + 4 * 4, columns.start + 2 * 96 + 2 * 4, 3)
  assert (rows.start, rows.stop) == (4, 100)
  outside = np.ones(grid.shape[:2], bool)
  for row in range(3):
    for column in range(2):
      outside[pictures.cell_box(row, column, 96)] = False
  outside[:, : columns.start] = False
  assert (grid[outside] == 255).all()


def test_each_row_has_a_label_that_fits_beside_it():
  grid = pictures.view_grid(
    list(random_images(1, 224, 224)), *random_images(2, 1, 224, 224)
  )
  labels = []
  for row in range(3):
    rows, columns = pictures.cell_box(row, 0, 224)
    gutter = grid[rows, : columns.start]
    inked_rows, inked_columns = np.nonzero((gutter < 128).all(axis=-1))
    assert abs(inked_rows.mean() - 112) < 12  # half way up
    assert inked_columns.min() > 3
    assert inked_columns.max() < columns.start - 3
    labels.append(gutter.tobytes())
  assert len(set(labels)) == 3


@pytest.mark.parametrize(
  ("height", "width", "box"),
  [
    (300, 200, (slice(0, 96), slice(16, 80))),
    (100, 400, (slice(36, 60), slice(0, 96))),
    (24, 48, (slice(24, 72), slice(0, 96))),
  ],
)
def test_originals_keep_their_aspect_ratio(height, width, box):
  # Four by four blocks, each of one colour.
  colors = RANDOM.integers(0, 200, (4, 4, 3), np.uint8)
  image = np.kron(colors, np.ones((height // 4, width // 4, 1), np.uint8))
  cell = pictures.letterbox(image, 96)
  rows, columns = (
    np.linspace(side.start, side.stop, 9)[1::2].astype(int) for side in box
  )
  centres = cell[np.ix_(rows, columns)].astype(int)
  np.testing.assert_allclose(centres, colors, atol=12)
  bars = np.ones((96, 96), bool)
  bars[box] = False
  assert (cell[bars] == GREY).all()
  assert (cell[box] != GREY).any(axis=-1).all()


def test_a_very_flat_original_does_not_vanish():
  cell = pictures.letterbox(np.full((1, 900, 3), 90, np.uint8), 96)
  assert (cell[47] == 90).all()
  assert (np.delete(cell, 47, axis=0) == GREY).all()


def test_large_originals_are_reduced_smoothly():
  checkerboard = np.indices((960, 960)).sum(0) % 2 * 255
  image = np.repeat(checkerboard[..., None], 3, -1).astype(np.uint8)
  inner = pictures.letterbox(image, 96)[2:-2, 2:-2].astype(int)
  assert abs(inner - 127).max() <= 2


def test_views_must_match_their_originals():
  views = random_images(2, 3, 16, 16)
  with pytest.raises(ValueError, match="2 originals"):
    pictures.view_grid(list(random_images(2, 16, 16)), *views)
  with pytest.raises(ValueError, match=r"view2 is \(2, 16, 16, 3\)"):
    pictures.view_grid(list(random_images(3, 16, 16)), views[0], views[1][:2])


def test_a_png_holds_the_image_and_leaves_no_other_file(tmp_path):
  image = random_images(7, 9)
  path = tmp_path / "new" / "views.png"
  pictures.save_png(str(path), image)
  np.testing.assert_array_equal(np.array(Image.open(path)), image)
  assert list(path.parent.iterdir()) == [path]


RECORD = [
  {
    "train/byol_loss": 3.0 / (k + 1),
    "train/top1": 0.1 * k,
    "train/projection_std": 0.05,
    "train/effective_rank": 60.0 + k,
    "train/learning_rate": 0.2 * k,
    "train/target_decay": 0.996,
    "train/grad_norm": 1.0 + k,
    "train/online_target_distance": 0.1 * k,
    "time/images_per_second": 1200.0,
    "time/data_wait_fraction": 0.02,
    "classifier/test/top1": 0.09 * k,
    "knn/test/top1": 0.08 * k,
  }
  for k in range(8)
]


def write_record(path, records):
  lines = [
    json.dumps({"step": 1000 * k, "wall_time": 1.0 * k} | record) + "\n"
    for k, record in enumerate(records)
  ]
  path.write_text("".join(lines))
  return str(path)


@pytest.fixture
def figures(monkeypatch):
  """Every figure that is made during the test."""
  made = []

  class Watched(Figure):
    def __init__(self, *args, **kwargs):
      super().__init__(*args, **kwargs)
      made.append(self)

  monkeypatch.setattr(pictures, "Figure", Watched)
  return made


def curves_in(figure):
  """Title of each panel -> {name of each curve: its values}."""
  panels, by_place = {}, {}
  for axes in figure.axes:
    # A second vertical axis has no title; it shares its place with the first.
    place = tuple(np.round(axes.get_position().bounds, 6))
    title = by_place.setdefault(place, axes.get_title(loc="left"))
    curves = panels.setdefault(title, {})
    for line in axes.lines:
      assert line.get_label() not in curves, "drawn twice"
      curves[line.get_label()] = line.get_ydata()
  return panels


def texts_in(figure):
  return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_curves_show_every_metric_in_its_panel(tmp_path, figures):
  source = write_record(tmp_path / "metrics.jsonl", RECORD)
  pictures.training_curves(source, str(tmp_path / "curves.png"))
  (figure,) = figures
  panels = curves_in(figure)
  assert {title: set(curves) for title, curves in panels.items()} == {
    "BYOL loss": {"train/byol_loss"},
    "Classification": {"train/top1", "classifier/test/top1", "knn/test/top1"},
    "Signs of collapse": {"train/projection_std", "train/effective_rank"},
    "Schedules": {"train/learning_rate", "train/target_decay"},
    "Size of the updates": {"train/grad_norm", "train/online_target_distance"},
    "Throughput": {"time/images_per_second", "time/data_wait_fraction"},
  }
  for curves in panels.values():
    for name, values in curves.items():
      np.testing.assert_array_equal(values, [line[name] for line in RECORD])
  assert texts_in(figure) == []
  assert all(not axes.get_legend().get_frame_on() for axes in figure.axes[:6])
  ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
  assert "2,000" in ticks
  throughput, waiting = figure.axes[5], figure.axes[-1]
  assert "1,200" in [t.get_text() for t in throughput.get_yticklabels()]
  assert "100%" in [t.get_text() for t in waiting.get_yticklabels()]


def test_curves_are_a_picture_that_depends_on_the_record_only(tmp_path):
  source = write_record(tmp_path / "a.jsonl", RECORD)
  for name in ("first.png", "second.png"):
    with matplotlib.style.context("dark_background"):  # a user's own style
      pictures.training_curves(source, str(tmp_path / name))
  image = np.array(Image.open(tmp_path / "first.png"))
  assert image.shape == (800, 1500, 3)
  assert (image[0, 0] == 255).all()
  assert (image != 255).any(axis=-1).mean() > 0.01
  first, second = (tmp_path / n for n in ("first.png", "second.png"))
  assert first.read_bytes() == second.read_bytes()
  other = write_record(tmp_path / "b.jsonl", RECORD[:5])
  pictures.training_curves(other, str(tmp_path / "other.png"))
  assert (tmp_path / "other.png").read_bytes() != first.read_bytes()


def test_absent_metrics_are_named_as_such(tmp_path, figures):
  record = {"train/effective_rank": 3.0, "knn/test/top1": 0.5}
  source = write_record(tmp_path / "metrics.jsonl", [record])
  pictures.training_curves(source, str(tmp_path / "curves.png"))
  assert texts_in(figures[0]) == ["not recorded"] * 4
  assert curves_in(figures[0])["Signs of collapse"] == {
    "train/effective_rank": [3.0]
  }
  # A line through one point is invisible: the point needs its marker.
  lines = [line for axes in figures[0].axes for line in axes.lines]
  assert [line.get_marker() for line in lines] == ["o", "o"]
  assert np.array(Image.open(tmp_path / "curves.png")).min() == 0


def test_an_empty_record_still_gives_a_picture(tmp_path, figures):
  source = write_record(tmp_path / "metrics.jsonl", [])
  pictures.training_curves(source, str(tmp_path / "curves.png"))
  assert texts_in(figures[0]) == ["not recorded"] * 6
  assert (tmp_path / "curves.png").exists()


def test_a_record_being_written_and_values_not_finite_are_read(
  tmp_path, figures
):
  records = [{"train/grad_norm": v} for v in (1.0, "nan", "inf", 2.0)]
  source = write_record(tmp_path / "metrics.jsonl", records)
  with open(source, "a") as file:
    file.write('{"step": 4000, "wall')
  series = pictures.read_metrics(source)
  assert list(series) == ["train/grad_norm"]
  np.testing.assert_array_equal(
    series["train/grad_norm"],
    [(0, 1.0), (1000, np.nan), (2000, np.inf), (3000, 2.0)],
  )
  pictures.training_curves(source, str(tmp_path / "curves.png"))
  drawn = curves_in(figures[0])["Size of the updates"]["train/grad_norm"]
  np.testing.assert_array_equal(drawn, [1.0, np.nan, np.nan, 2.0])


def test_no_record_is_an_error_that_says_what_to_give(tmp_path):
  with pytest.raises(UsageError, match="workdir of a run"):
    pictures.training_curves(str(tmp_path / "none.jsonl"), "unused.png")
