"""Depth estimation by FCRN (paper §4, App. D.6, Table 4b).

One training for each seed, reported on test in both conventions. Beside it
stands what the mean depth of train would reach.
"""

from typing import Any

from byol_flax.evaluation import (
  dense,
  dense_splits,
  depth_metrics,
  depth_network,
  mean_depth,
)
from byol_flax.evaluation.protocol import Setting
from input_pipeline import dense_depth, dense_sources

Measures = dict[str, dict[str, float]]

# What the paper leaves open, and what is done here.
CHOICES = (
  "Encoder and decoder are trained together. Momentum is plain, and decay is "
  "added to the gradient of every weight, biases and BatchNorm too.",
  "The bound of the reverse Huber loss is a share of the largest error in the "
  "whole batch; the paper names only the loss.",
  "Pixels without a valid depth count neither in the loss nor in the measures. "
  "The authors of the network use no mask, because the labelled depths of NYU "
  "are filled; there the measures are the same.",
  "fcrn: the prediction is stretched over the whole frame, as the authors of "
  "the network do, although it was made for the middle. cropped: it is "
  "compared with the middle alone, in all its pixels.",
  "A prediction that is not positive is within no ratio of the truth.",
  "Odd rows and columns of an up-convolution lie two pixels further on than "
  "unpooling and a convolution would put them, as in the authors' code.",
)


def run(setting: Setting) -> dict[str, Any]:
  """The protocol of configs/depth.py."""
  config = setting.config
  train, test = (
    dense_splits.open_split(setting, key, dense_sources.open_depth)
    for key in ("train_split", "test_split")
  )
  dense_splits.check_data(setting, train, test)
  dense_splits.check(setting, train)
  for split in (train, test):
    dense_splits.check_counted(
      split,
      lambda example: bool(dense_depth.target(example["label"]).any()),
      "valid depth in the middle of the frame, which the network sees,",
    )
  constant = mean_depth.measures(setting, train, test)
  network = depth_network.DepthNetwork.of(setting)
  trials = [
    network.trial(train, test, seed, keeps=i == 0)
    for i, seed in enumerate(config.seeds)
  ]
  spreads = {
    split: _spreads([trial[split] for trial in trials])
    for split in ("test", "train")
  }
  metrics = {
    convention: {key: x["mean"] for key, x in found.items()}
    for convention, found in spreads["test"].items()
  }
  for title, found in (
    (f"depth, {len(trials)} training(s)", metrics),
    *((f"mean depth of train, {how}", x) for how, x in constant.items()),
  ):
    setting.tell(_line(title, found[config.convention], config.convention))
  return {
    "metrics": metrics,
    "spreads": spreads,
    "mean_depth": constant,
    "trials": dict(zip(map(str, config.seeds), trials, strict=True)),
    "selection": "Nothing is chosen: the last update counts.",
    "updates": config.steps * len(trials),
    "splits": setting.describe(train, test),
    "faults": {
      split.split: dense_splits.faults_of(split) for split in (train, test)
    },
    "choices": [
      *CHOICES,
      f"Momentum is {config.momentum:g}, and the rate falls to a tenth after "
      f"the shares {tuple(config.drops)} of the updates; the paper states "
      "neither.",
      f"BatchNorm of the encoder is {config.batch_norm.replace('_', ' ')}.",
    ],
  }


def _spreads(trials: list[Measures]) -> dict[str, dict[str, Any]]:
  """Mean and deviation of each measure over trainings, by convention."""
  return {
    convention: {
      key: dense.spread([trial[convention][key] for trial in trials])
      for key in first
    }
    for convention, first in trials[0].items()
  }


def _line(title: str, found: dict[str, float], convention: str) -> str:
  shares = ", ".join(f"{found[key]:.3f}" for key in depth_metrics.RATIOS)
  return (
    f"{title}: rel {found['rel']:.3f}, rms {found['rms']:.3f} m, within 1.25, "
    f"1.25² and 1.25³ {shares} on test ({convention})"
  )
