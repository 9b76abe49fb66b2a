"""Evaluation of frozen representations: kNN and linear probes on few labels.

Command: byol evaluate --config=configs/few_label.py --encoder=RUN --workdir=DIR
Not a protocol of the paper: quick figures for a run on any labelled data.
Argument after the colon: baselines=1 adds raw pixels and the untrained encoder.
"""

from ml_collections import ConfigDict, config_dict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  given = common.parse_arg(arg, baselines=0)
  config = ConfigDict()
  config.protocol = "few_label"
  baselines = ("raw_pixels", "random_encoder") if given["baselines"] else ()
  config.representations = (*baselines, "byol")
  config.data_name = ""  # another labelled set than the encoder's, as data.name
  # As loader.data_dir, of which that of the encoder counts if this is unset.
  config.data_dir = config_dict.placeholder(str)
  config.train_split = "train"
  config.test_split = "test"
  config.batch_size = 360
  config.num_workers = -1  # that read images; -1 for one per core
  config.num_threads = 2  # of each
  config.few_label = {
    "per_class": (1, 5, 10),
    "draws": 5,
    "inverse_penalty": 1.0,
    "seed": 0,
  }
  config.neighbours = 5
  return config
