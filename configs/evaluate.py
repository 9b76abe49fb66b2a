"""Evaluation of frozen representations: kNN and linear probes on few labels.

Command: byol evaluate --config=configs/evaluate.py --workdir=DIR
Not a protocol of the paper: quick figures for a run on any labelled data.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; takes no arguments."""
  common.parse_arg(arg)
  config = ConfigDict()
  # Also "raw_pixels" and "random_encoder", for comparison.
  config.representations = ("random_encoder", "byol")
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
