"""Semantic segmentation by an FCN (paper §4, App. D.4, Table 4a).

The learning rate is chosen on images that are held out of train. With it the
network is trained anew on all of train, once for each seed, and every one of
these trainings is reported on test.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from byol_flax.evaluation import (
  dense,
  dense_splits,
  grid,
  segmenter,
)
from byol_flax.evaluation.protocol import Setting
from input_pipeline import dense_sources, pipeline, sources
from input_pipeline.errors import UsageError
from input_pipeline.voc_classes import VOID

# What the paper leaves open, and what is done here.
CHOICES = (
  "Encoder and head are trained together; the paper refers to MoCo for it.",
  "Momentum is plain, and decay is added to the gradient of every weight, "
  "biases and BatchNorm too, as in PyTorch.",
  "Void pixels (255) count neither in the loss nor in the measure. The loss is "
  "the mean over all other pixels of a batch.",
  "Scores are enlarged by linear interpolation between the pixels that the "
  "places of the map stand for: place i for pixel i times the output stride.",
  "Mean IoU is over the classes that are true or predicted somewhere in the "
  "split.",
)


def run(setting: Setting) -> dict[str, Any]:
  """The protocol of configs/segmentation.py."""
  config = setting.config
  open_ = functools.partial(
    dense_sources.open_classes, classes_file=config.classes_file or ""
  )
  train, test = (
    dense_splits.open_split(setting, key, open_)
    for key in ("train_split", "test_split")
  )
  dense_splits.check_data(setting, train, test)
  held, rest = _hold_out(setting, train)
  dense_splits.check(setting, rest or train)
  for split in filter(None, (train, held, test)):
    # Tells what is wrong before all trainings.
    shown = None if split is train else segmenter.canvas(config, split)
    dense_splits.check_counted(
      split,
      functools.partial(_counts, shown),
      "pixels of the declared classes"
      + (f", as inference={config.inference} shows them," if shown else ""),
    )
  network = segmenter.Segmenter.of(setting, train.num_classes)
  if rest and held:
    rates = _named(config.learning_rates)
    found = grid.scores(
      setting,
      {
        name: functools.partial(
          network.training, name, rest, held, rate, config.seed
        )
        for name, rate in rates.items()
      },
      lambda state: network.measures(state, held)["mean_iou"],
    )
    best = grid.best(found)
    rate = rates[best]
    grid.forget(setting, best)
    _tell_choice(setting, found, best)
  else:
    found, (rate,) = {}, config.learning_rates
  trials = [
    network.trial(train, test, rate, seed, keeps=i == 0)
    for i, seed in enumerate(config.seeds)
  ]
  scores = dense.spread([trial["mean_iou"] for trial in trials])
  setting.tell(
    f"segmentation: mean IoU {scores['mean']:.3f} on test, of "
    f"{len(trials)} training(s) at rate {rate:.3g}"
  )
  return {
    "mean_iou": scores["mean"],
    "spread": scores,
    "pixel_accuracy": float(np.mean([x["pixel_accuracy"] for x in trials])),
    "per_class": _mean_per_class(trials),
    "trials": dict(zip(map(str, config.seeds), trials, strict=True)),
    "learning_rate": rate,
    "valid": found,
    "selection": _selection(config, len(found)),
    "updates": config.steps * (len(found) + len(trials)),
    "splits": setting.describe(*filter(None, (train, rest, held, test))),
    "faults": {
      split.split: dense_splits.faults_of(split) for split in (train, test)
    },
    "choices": [*CHOICES, *_choices(config)],
  }


def _hold_out(
  setting: Setting, train: sources.Source
) -> tuple[sources.Source | None, sources.Source | None]:
  """The images that the rate is chosen on, and the rest of train.

  Raises:
    UsageError: there are too many, or several rates and none to choose on.
  """
  config = setting.config
  if not config.held_out:
    if len(config.learning_rates) != 1:
      raise UsageError(
        f"held_out is 0, so nothing is there to choose one of the "
        f"{len(config.learning_rates)} learning_rates on; give one rate, such "
        "as --config.learning_rates=(0.01,), or hold images out."
      )
    return None, None
  if config.held_out >= len(train):
    raise UsageError(
      f"held_out is {config.held_out}, but {train.split} has only {len(train)} "
      "images; expected fewer."
    )
  order = np.random.default_rng(config.seed).permutation(len(train))
  held, rest = np.split(order, [config.held_out])
  return (
    sources.Part(train, f"held out of {train.split}", np.sort(held)),
    sources.Part(train, f"rest of {train.split}", np.sort(rest)),
  )


def _counts(shown: pipeline.RowTransform | None, example: Any) -> bool:
  """Whether a pixel of an example, or of what is shown of it, has a class."""
  classes = shown.map(example)["classes"] if shown else example["label"]
  return bool((classes != VOID).any())


def _named(rates: Sequence[float]) -> dict[str, float]:
  """The rates by the names of their trainings, in three digits if they do."""
  named = {f"rate-{rate:.3g}": rate for rate in rates}
  if len(named) == len(set(rates)):
    return named
  return {f"rate-{rate!r}": rate for rate in rates}


def _tell_choice(setting: Setting, found: dict[str, float], best: str) -> None:
  setting.tell(
    f"chosen on held-out images: {best}, mean IoU {found[best]:.3f} there"
  )
  names = list(found)
  if len(names) > 1 and best in (names[0], names[-1]):
    setting.tell(
      "It is at the end of the sweep; a rate beyond it may be better."
    )


def _mean_per_class(trials: list[dict[str, Any]]) -> dict[str, float | None]:
  """Mean over the trainings in which a class has an IoU."""
  found: dict[str, float | None] = {}
  for name in trials[0]["per_class"]:
    each = [trial["per_class"][name] for trial in trials]
    some = [value for value in each if value is not None]
    found[name] = float(np.mean(some)) if some else None
  return found


def _selection(config: Any, tried: int) -> str:
  if not tried:
    return "Nothing is chosen: there is one learning rate."
  return (
    f"Of {tried} learning rates the one with the best mean IoU on "
    f"{config.held_out:,} images held out of {config.train_split}; with it the "
    f"network is trained anew on all of {config.train_split}, and reported on "
    f"{config.test_split}."
  )


def _choices(config: Any) -> list[str]:
  """What depends on the config."""
  shown = {
    "centre_crop": f"Only the central {config.crop_size} × {config.crop_size} "
    "pixels of a test image are segmented and counted, as in the paper.",
    "whole": "Test images are segmented whole, as MoCo does; the paper crops.",
  }
  found = [
    f"BatchNorm of the encoder is {config.batch_norm.replace('_', ' ')}.",
    f"Momentum is {config.momentum:g}, which the paper does not state.",
    shown[config.inference],
  ]
  if config.held_out:
    found.append(
      f"Which {config.held_out:,} images are held out is drawn by seed "
      f"{config.seed}; the paper does not say which it took."
    )
  return found
