import json

import matplotlib.style
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from byol_flax.reports import curves as curves_lib
from byol_flax.reports import figures as figures_lib
from input_pipeline.errors import UsageError

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

  monkeypatch.setattr(figures_lib, "Figure", Watched)
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
  curves_lib.training_curves(source, str(tmp_path / "curves.png"))
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


@pytest.mark.slow
def test_curves_are_a_picture_that_depends_on_the_record_only(tmp_path):
  source = write_record(tmp_path / "a.jsonl", RECORD)
  for name in ("first.png", "second.png"):
    with matplotlib.style.context("dark_background"):  # a user's own style
      curves_lib.training_curves(source, str(tmp_path / name))
  image = np.array(Image.open(tmp_path / "first.png"))
  assert image.shape == (800, 1500, 3)
  assert (image[0, 0] == 255).all()
  assert (image != 255).any(axis=-1).mean() > 0.01
  first, second = (tmp_path / n for n in ("first.png", "second.png"))
  assert first.read_bytes() == second.read_bytes()
  other = write_record(tmp_path / "b.jsonl", RECORD[:5])
  curves_lib.training_curves(other, str(tmp_path / "other.png"))
  assert (tmp_path / "other.png").read_bytes() != first.read_bytes()


def test_absent_metrics_are_named_as_such(tmp_path, figures):
  record = {"train/effective_rank": 3.0, "knn/test/top1": 0.5}
  source = write_record(tmp_path / "metrics.jsonl", [record])
  curves_lib.training_curves(source, str(tmp_path / "curves.png"))
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
  curves_lib.training_curves(source, str(tmp_path / "curves.png"))
  assert texts_in(figures[0]) == ["not recorded"] * 6
  assert (tmp_path / "curves.png").exists()


def test_a_record_being_written_and_values_not_finite_are_read(
  tmp_path, figures
):
  records = [{"train/grad_norm": v} for v in (1.0, "nan", "inf", 2.0)]
  source = write_record(tmp_path / "metrics.jsonl", records)
  with open(source, "a") as file:
    file.write('{"step": 4000, "wall')
  series = curves_lib.read_metrics(source)
  assert list(series) == ["train/grad_norm"]
  np.testing.assert_array_equal(
    series["train/grad_norm"],
    [(0, 1.0), (1000, np.nan), (2000, np.inf), (3000, 2.0)],
  )
  curves_lib.training_curves(source, str(tmp_path / "curves.png"))
  drawn = curves_in(figures[0])["Size of the updates"]["train/grad_norm"]
  np.testing.assert_array_equal(drawn, [1.0, np.nan, np.nan, 2.0])


def test_notes_are_no_curves(tmp_path):
  path = tmp_path / "metrics.jsonl"
  note = {"kind": "note", "watchdog": "It looks ill."}
  write_record(path, [{"train/byol_loss": 1.0}, note])
  series = curves_lib.read_metrics(str(path))
  assert {name: len(x) for name, x in series.items()} == {"train/byol_loss": 1}


def test_no_record_is_an_error_that_says_what_to_give(tmp_path):
  with pytest.raises(UsageError, match="workdir of a run"):
    curves_lib.training_curves(str(tmp_path / "none.jsonl"), "unused.png")
