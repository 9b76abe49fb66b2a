"""Transfer by fine-tuning on another data set (paper App. D.3, Table 3)."""

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np

from byol_flax.evaluation import (
  features,
  grid,
  splits,
  three_splits,
  training,
  whole_network,
)
from byol_flax.evaluation import scores as scores_lib
from byol_flax.evaluation.encoder import Encoder
from byol_flax.evaluation.protocol import Setting
from input_pipeline import sources, subsets

# What the paper leaves open, and what is done here.
CHOICES = (
  "Cosine to 0 without warm-up; the paper does not state the schedule.",
  "Decay is added to the gradient of every weight, biases too.",
  "The chosen point is trained anew on train and valid together; the epoch "
  "that decides how fast BatchNorm's averages move is then longer.",
)
CHOICE_OF_LOSS = (
  "Where an image may have several classes, the loss is the mean of sigmoid "
  "cross-entropies over images and classes, as in ssl-transfer."
)


def run(setting: Setting) -> dict[str, Any]:
  """The protocol of configs/finetune.py."""
  config = setting.config
  data = three_splits.open_splits(setting)
  splits.check_batch(config.batch_size, data.train, setting.mesh)
  encoder = features.calibrate(
    setting.encoder,
    data.train,
    setting.make_reader(),
    setting.mesh,
    batch_size=config.batch_size,
  )
  chosen = points(config)
  tried = within(config, list(chosen))

  train = data.to_train_on("train")
  of_grid = _Trainings.on(train, setting, encoder)

  def classify(state: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    logits, numbers = whole_network.logits(
      setting, of_grid.functions, state, data.named[name]
    )
    return logits, data.labels[name][numbers]

  measure = scores_lib.METRICS[config.metric]

  def report(state: Any) -> dict[str, Any]:
    logits, labels = classify(state, "test")
    return {
      "test": measure(logits, labels).value,
      "confusions": data.keep_guesses(setting.workdir, logits, labels),
    }

  found = grid.scores(
    setting,
    {
      point: functools.partial(of_grid.make, point, chosen[point])
      for point in tried
    },
    lambda state: measure(*classify(state, "valid")).value,
  )
  best = grid.best(found)
  both = subsets.Joined(train, data.to_train_on("valid"))
  again = _Trainings.on(both, setting, encoder).make(
    f"{best}-train-and-valid", chosen[best]
  )
  kept = training.once(
    setting, "scores-test", lambda: report(training.run(again, setting))
  )
  grid.forget(setting, best)
  grid.forget(setting, again.name)
  setting.tell(
    f"fine-tuned: {config.metric} {kept['test']:.3f} on test (learning rate "
    f"{chosen[best]['learning_rate']:g}, listed weight decay "
    f"{chosen[best]['listed_weight_decay']:g}; {len(tried)} of {len(chosen)} "
    "points of the grid were tried)"
  )
  return {
    **chosen[best],
    config.metric: kept["test"],
    "confusions": kept.get("confusions"),  # older versions did not keep them
    "valid": found,
    "tried": len(tried),
    "of": len(chosen),
    "selection": (
      f"Of {len(tried)} trainings, of the grid's {len(chosen)}, the one with "
      f"the best {config.metric} on valid; trained anew on train and valid, it "
      "alone is reported on test."
    ),
    "updates": config.steps * (len(tried) + 1),
    "splits": setting.describe(*map(data.to_train_on, data.named)),
    "choices": [
      *data.choices,
      *CHOICES,
      *([CHOICE_OF_LOSS] if config.metric == "map11" else []),
    ],
  }


@dataclasses.dataclass(frozen=True)
class _Trainings:
  """The trainings on one source; they share what is compiled."""

  source: sources.Source
  setting: Setting
  encoder: Encoder
  functions: whole_network.Functions

  @classmethod
  def on(
    cls, source: sources.Source, setting: Setting, encoder: Encoder
  ) -> "_Trainings":
    """BatchNorm's averages move as fast as the size of `source` asks."""
    functions = whole_network.make_functions(
      setting.config,
      _with_decay(encoder, len(source) / setting.config.batch_size),
      setting.mesh,
      num_classes=source.num_classes,
    )
    return cls(source, setting, encoder, functions)

  def make(self, name: str, point: dict[str, float]) -> training.Training:
    """The training in a folder `name` with the values of a point."""
    return whole_network.make_training(
      self.setting,
      self.encoder,
      self.functions,
      name=name,
      source=self.source,
      sgd=whole_network.Sgd(
        # Not per 256 images: the paper's batch is one, and its rates are given.
        peak=point["learning_rate"],
        warmup_steps=0,
        total_steps=self.setting.config.steps,
        weight_decay=point["weight_decay"],
      ),
    )


def points(config: Any) -> dict[str, dict[str, float]]:
  """The grid: name of a training -> what is set in it."""
  # The listed decays are products with the learning rate (App. D.3).
  return {
    f"lr{rate:g}-wd{decay:g}": {
      "learning_rate": rate,
      "listed_weight_decay": decay,
      "weight_decay": decay / rate,
    }
    for rate, decay in itertools.product(
      config.learning_rates, config.weight_decays
    )
  }


def _with_decay(encoder: Encoder, steps_per_epoch: float) -> Encoder:
  """BatchNorm's averages follow a small data set faster (App. D.3)."""
  decay = max(1 - 10 / steps_per_epoch, 0.9)
  norm = functools.partial(encoder.module.norm, decay=decay)
  return dataclasses.replace(encoder, module=encoder.module.clone(norm=norm))


def within(config: Any, points: list[str]) -> list[str]:
  """All points, or a sample of them, drawn by seed, in their order."""
  if not 0 < config.budget < len(points):
    return points
  rng = np.random.default_rng(config.seed)
  drawn = rng.choice(len(points), config.budget, replace=False)
  return [points[i] for i in np.sort(drawn)]
