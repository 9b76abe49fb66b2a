"""Fine-tuning on a part of the labels (paper §4, App. C.1; Tables 2 and 8)."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from byol_flax.evaluation import (
  features,
  splits,
  training,
  whole_network,
)
from byol_flax.evaluation.encoder import Encoder
from byol_flax.evaluation.protocol import Setting
from byol_flax.pretrain import schedules
from input_pipeline import sources, subsets, whole_files


def run(setting: Setting) -> dict[str, Any]:
  """The protocol of configs/semi_supervised.py."""
  config = setting.config
  train, valid, test = (
    setting.open_split(name)
    for name in ("train_split", "valid_split", "test_split")
  )
  setting.check_splits(train, valid, test)
  reader = setting.make_reader()
  encoder = features.calibrate(setting.encoder, train, reader, setting.mesh)
  parts = _parts(setting, train)
  for part in parts.values():
    splits.check_batch(
      config.batch_size, max(config.epochs), part, setting.mesh
    )
  rows = []
  for name, part in parts.items():
    grid = _Grid(setting, encoder, name, part)
    rows.append(grid.best(valid, test))
    setting.tell(_line(rows[-1]))
  return {"rows": rows, "splits": setting.describe(train, valid, test)}


def _parts(
  setting: Setting, train: sources.Source
) -> dict[str, subsets.Chosen]:
  """Chooses the labelled images of each row, and writes a list of each."""
  config = setting.config
  if config.subset_file:
    indices = subsets.listed(train, config.subset_file)
    return {"listed": subsets.Chosen(train, "listed", indices)}
  labels = subsets.labels_of(train)
  parts = {}
  for share in config.shares:
    name = f"{100 * share:g}-percent"
    indices = subsets.balanced(labels, share, config.subset_seed)
    parts[name] = subsets.Chosen(train, name, indices)
    if jax.process_index() == 0:
      path = epath.Path(setting.workdir, f"labels-{name}.txt")
      whole_files.write_text(path, subsets.write_list(train, indices))
  return parts


@dataclasses.dataclass(frozen=True)
class _Grid:
  """Learning rates and lengths, tried on the same labelled images."""

  setting: Setting
  encoder: Encoder
  name: str
  part: sources.Source

  def best(self, valid: sources.Source, test: sources.Source) -> dict[str, Any]:
    """Trains each point, chooses on `valid`, reports once on `test`."""
    config = self.setting.config
    points = list(itertools.product(config.epochs, config.learning_rates))
    found: dict[tuple[float, float], float] = {}
    for point in points:
      kept = training.once(
        self.setting,
        f"scores-{self._folder(point)}",
        functools.partial(self._score, point, [valid]),
      )
      found[point] = kept["scores"][0][0]
      # The first of equal ones. The others make room on the disk.
      best = max(found, key=found.__getitem__)
      for lost in found.keys() - {best}:
        self._forget(lost)
    kept = training.once(
      self.setting,
      f"scores-{self.name}",
      functools.partial(self._score, best, [test]),
    )
    self._forget(best)
    epochs, rate = best
    return {
      "labels": self.name,
      "examples": len(self.part),
      "learning_rate": rate,
      "epochs": epochs,
      "valid_top1": {
        f"{e:g} epochs, lr {r:g}": score for (e, r), score in found.items()
      },
      "top1": kept["scores"][0][0],
      "top5": kept["scores"][0][1],
    }

  def _folder(self, point: tuple[float, float]) -> str:
    epochs, rate = point
    return f"{self.name}-lr{rate:g}-{epochs:g}epochs"

  def _forget(self, point: tuple[float, float]) -> None:
    """Removes the checkpoints of a training that nobody needs any more."""
    self.setting.processes.wait(f"forget {self._folder(point)}")
    folder = epath.Path(self.setting.workdir, self._folder(point))
    if jax.process_index() == 0 and (folder / "checkpoints").exists():
      (folder / "checkpoints").rmtree()

  def _score(
    self, point: tuple[float, float], counted: Sequence[sources.Source]
  ) -> dict[str, Any]:
    """Top-1 and top-5 on splits; trains first, unless that is done already."""
    config = self.setting.config
    epochs, rate = point
    total_steps = splits.total_steps(epochs, self.part, config.batch_size)
    state = training.run(
      whole_network.make_training(
        self.setting,
        self.encoder,
        name=self._folder(point),
        source=self.part,
        total_steps=total_steps,
        learning_rate=schedules.learning_rate_schedule(
          base_learning_rate=rate,
          batch_size=config.batch_size,
          warmup_steps=0,
          total_steps=total_steps,
        ),
        weight_decay=config.weight_decay,
      ),
      self.setting,
    )
    return {
      "scores": whole_network.scores(self.setting, self.encoder, state, counted)
    }


def _line(row: dict[str, Any]) -> str:
  return (
    f"semi-supervised, {row['labels']} of the labels ({row['examples']:,} "
    f"images): top-1 {row['top1']:.3f}, top-5 {row['top5']:.3f} on test "
    f"(learning rate {row['learning_rate']:g}, {row['epochs']:g} epochs)"
  )
