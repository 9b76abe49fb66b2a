"""Object detection by Faster R-CNN (paper §4, App. D.5, Table 4a).

One training for each seed, all of which are reported on test.
"""

import functools
from typing import Any

import numpy as np

from byol_flax.evaluation import dense, dense_splits
from byol_flax.evaluation.detector import Detector
from byol_flax.evaluation.protocol import Setting
from input_pipeline import dense_sources

# The headline first: VOC2007's measure.
MEASURES = ("ap50", "ap50_area", "ap50_95")

# What the paper leaves open, and what is done here.
CHOICES = (
  "What the paper does not state is as in Detectron2's R50-C4, and as in "
  "MoCo's additions to it: the schedule, and a BatchNorm after the last group.",
  "Training is synchronous. App. D.5 trains asynchronously with nine workers, "
  "whose updates arrive late; there is no such delay here.",
  "Images lie on canvases of a few sizes. All images of an update share short "
  "edge and orientation, which Detectron2 draws for each image.",
  "Anchors in the padding of a canvas are neither trained on nor proposed.",
  "If no anchor overlaps a true box, none is trained to find it; Detectron2 "
  "then takes every anchor that overlaps nothing for positive.",
  "BatchNorm's averages in a test are those of the training; Detectron2 takes "
  "them anew from 200 batches (PreciseBN).",
  "Decay is added to the gradient of every weight and bias except BatchNorm's.",
  "Difficult objects are trained on; the measures count them neither way.",
  "ap50 averages the precision at eleven recalls (VOC2007), ap50_area is the "
  "area (VOC2010), and ap50_95 the mean area over ten overlaps. A detection is "
  "right from the very overlap on, as in VOC's development kit.",
)


def run(setting: Setting) -> dict[str, Any]:
  """The protocol of configs/detection.py."""
  config = setting.config
  open_ = functools.partial(
    dense_sources.open_boxes, classes_file=config.classes_file or ""
  )
  train, test = (
    dense_splits.open_split(setting, key, open_)
    for key in ("train_split", "test_split")
  )
  dense_splits.check_data(setting, train, test)
  dense_splits.check_counted(
    train,
    lambda example: len(example["label"]) > 0,
    "boxes of the declared classes",
  )
  dense_splits.check_counted(
    test,
    lambda example: bool((example["label"][:, 5] == 0).any()),
    "boxes of the declared classes that are not difficult",
  )
  dense_splits.check(setting, train)
  if train.most_boxes > config.max_boxes:
    setting.tell(
      f"An image of {train.split} has {train.most_boxes} boxes; the first "
      f"{config.max_boxes} of an image are trained on, and the others count as "
      "background. Raise max_boxes to train on all."
    )
  network = Detector.of(setting, train.num_classes)
  trials = [
    network.trial(train, test, seed, keeps=i == 0)
    for i, seed in enumerate(config.seeds)
  ]
  spreads = {
    name: dense.spread([trial[name] for trial in trials]) for name in MEASURES
  }
  means = {name: spread["mean"] for name, spread in spreads.items()}
  setting.tell(
    f"detection: AP50 {means['ap50']:.3f} (eleven points), "
    f"{means['ap50_area']:.3f} (area), AP50:95 {means['ap50_95']:.3f} on test, "
    f"of {len(trials)} training(s)"
  )
  return {
    **means,
    "spreads": spreads,
    "per_class": _mean_per_class(trials),
    "trials": dict(zip(map(str, config.seeds), trials, strict=True)),
    "selection": "Nothing is chosen: the last update counts.",
    "updates": config.steps * len(trials),
    "splits": setting.describe(train, test),
    "faults": {
      split.split: dense_splits.faults_of(split) for split in (train, test)
    },
    "choices": [*CHOICES, *_choices(config)],
  }


def _mean_per_class(
  trials: list[dict[str, Any]],
) -> dict[str, float | None]:
  """`ap50` of each class, averaged over trainings; None without true boxes."""
  return {
    name: None
    if value is None
    else float(np.mean([trial["per_class"][name] for trial in trials]))
    for name, value in trials[0]["per_class"].items()
  }


def _choices(config: Any) -> list[str]:
  """What depends on the config."""
  encoder = {
    "fine_tuned": "The encoder is trained too, as the paper's body says; its "
    "App. D.5 speaks of a frozen one.",
    "frozen": "The encoder is frozen, as in App. D.5; the paper's body says "
    "that it is trained too.",
  }
  return [
    encoder[config.encoder],
    f"BatchNorm of the encoder is {dense.norm_of(config).replace('_', ' ')}.",
    f"RoIAlign averages {config.roi.sampling_ratio} × "
    f"{config.roi.sampling_ratio} points of each bin. Detectron2 takes more in "
    "larger boxes, which has no static shape.",
  ]
