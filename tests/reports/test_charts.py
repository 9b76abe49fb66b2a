import numpy as np
import pytest

from byol_flax.reports import charts
from byol_flax.reports import figures as figures_lib


@pytest.fixture
def figures(monkeypatch):
  """Every figure that is made during the test."""
  made = []

  class Watched(figures_lib.Figure):
    def __init__(self, *args, **kwargs):
      super().__init__(*args, **kwargs)
      made.append(self)

  monkeypatch.setattr(figures_lib, "Figure", Watched)
  return made


def lines_of(figure):
  (axes,) = figure.axes
  assert axes.get_xscale() == "log"
  return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def test_the_chosen_penalty_and_test_are_marked(figures):
  path = [(100.0, 0.3), (1.0, 0.6), (0.01, 0.5)]
  image = charts.penalties(path, chosen=1.0, test=0.55, metric="top1")
  assert image.shape == (500, 800, 3)
  assert image.dtype == np.uint8
  lines = lines_of(figures[0])
  assert lines["on valid"] == [[0.01, 0.5], [1.0, 0.6], [100.0, 0.3]]
  assert lines["on test"] == [[1.0, 0.55]]
  assert {x for x, _ in lines["chosen"]} == {1.0}


def test_labels_have_their_numbers_and_the_papers_points(figures):
  ours = [(12_712, 0.5), (127_116, 0.7)]
  charts.label_efficiency({"ours": ours}, [(12_712, 0.53)], title="of it")
  lines = lines_of(figures[0])
  assert lines == {
    "ours": [[12_712, 0.5], [127_116, 0.7]],
    "paper": [[12_712, 0.53]],
  }
  ticks = figures[0].axes[0].get_xticklabels()
  assert [tick.get_text() for tick in ticks] == ["12,712", "127,116"]
  charts.label_efficiency(
    {"one": [(41, 0.5)], "other": [(7, 0.2), (41, 0.6)]}, title="of it"
  )
  assert lines_of(figures[1]) == {
    "one": [[41, 0.5]],
    "other": [[7, 0.2], [41, 0.6]],
  }
  assert figures[1].axes[0].get_xticks().tolist() == [7, 41]
