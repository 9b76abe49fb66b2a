"""Evaluation of frozen representations: kNN and linear probes on few labels.

Command: byol evaluate --config=configs/few_label.py --encoder=RUN --workdir=DIR
This is no protocol of the paper; it gives quick figures on any labelled data.
It keeps no features; after a kill it begins anew, which costs one pass over the
images for each representation.
Argument after the colon: baselines=1 adds raw pixels and the untrained encoder.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  given = common.parse_arg(arg, baselines=0)
  config = common.protocol("few_label")
  baselines = ("raw_pixels", "random_encoder") if given["baselines"] else ()
  config.representations = (*baselines, "byol")
  config.train_split = "train"
  config.test_split = "test"
  config.batch_size = 360
  config.few_label = {
    "per_class": (1, 5, 10),
    "draws": 5,
    "inverse_penalty": 1.0,
    "seed": 0,
  }
  config.neighbours = 5
  return config
