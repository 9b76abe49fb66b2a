"""A grid keeps its leader, and its processes meet in one order."""

import types

from byol_flax.evaluation import grid, training, unread
from byol_flax.runs import loop
from byol_flax.runs.distributed import Processes


class Recorded(Processes):
  """Writes down where the processes wait for each other."""

  def __init__(self):
    super().__init__()
    self.waits = []

  def wait(self, name):
    self.waits.append(name)


def test_each_loser_is_forgotten_once_in_the_order_of_the_points(
  tmp_path, monkeypatch
):
  scores = {"a": 0.2, "b": 0.7, "c": 0.7, "d": 0.0, "e": 0.9}

  def train(name, setting):
    """Stands for minutes of updates; leaves a checkpoint."""
    (tmp_path / name / "checkpoints" / "1").mkdir(parents=True)
    if not scores[name]:
      raise loop.NonFiniteError("It became nan.", "The run stops here.")
    return scores[name]

  monkeypatch.setattr(training, "run", train)
  told = []
  setting = types.SimpleNamespace(
    workdir=str(tmp_path),
    processes=Recorded(),
    tell=told.append,
    maker={},
    missing=unread.Unread(),
  )
  points = {name: (lambda name=name: name) for name in scores}
  for _ in range(2):  # the second start finds all scores
    setting.processes.waits.clear()
    found = grid.scores(setting, points, lambda score: score)
    assert list(found.items()) == list(scores.items())
    # Of equal ones the first stays.
    assert setting.processes.waits == [f"forget {x}" for x in "acdb"]
  assert grid.best(found) == "e"
  kept = [path.parent.name for path in tmp_path.glob("*/checkpoints")]
  assert kept == ["e"]
  assert told == ["d scores 0, because it diverged: It became nan."]
