"""Trainings of a grid, of which one is chosen on the validation split."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from byol_flax.evaluation import training
from byol_flax.evaluation.protocol import Setting
from byol_flax.runs import loop


def scores(
  setting: Setting,
  points: Mapping[str, Callable[[], training.Training]],
  count: Callable[[Any], float],
) -> dict[str, float]:
  """Score of every point, in the order of `points`.

  Only the best one so far keeps its checkpoint, so that a grid takes the disk
  of two trainings. An earlier start's scores are not found again. A training
  that diverges, as the highest rates of a grid may, scores 0 and ends nothing.

  Args:
    setting: of the evaluation.
    points: name of a training's folder -> what makes the training.
    count: state -> score on the validation split; higher is better.
  """

  def score(name: str) -> dict[str, float]:
    try:
      return {"score": count(training.run(points[name](), setting))}
    except loop.NonFiniteError as error:
      setting.tell(f"{name} scores 0, because it diverged: {error.fact}")
      return {"score": 0.0}

  found: dict[str, float] = {}
  leader = ""
  for name in points:
    kept = training.once(
      setting, f"scores-{name}", functools.partial(score, name)
    )
    found[name] = kept["score"]
    if leader:
      # One name at a time, the same on every process: they wait for each other.
      forget(setting, name if best(found) == leader else leader)
    leader = best(found)
  return found


def best(found: Mapping[str, float]) -> str:
  """The name with the highest score; of equal ones the first."""
  return max(found, key=found.__getitem__)


def forget(setting: Setting, name: str) -> None:
  """Removes the checkpoints of a training that nobody needs any more."""
  setting.processes.wait(f"forget {name}")
  folder = epath.Path(setting.workdir, name, "checkpoints")
  if jax.process_index() == 0 and folder.exists():
    folder.rmtree()
