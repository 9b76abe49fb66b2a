"""Linear transfer to other data sets (paper §4, App. D; Tables 3, 8 and 10).

Command: byol evaluate --config=configs/transfer.py:pets --encoder=RUN
  --workdir=DIR [--config.data_dir=TFDS_DIR]
Argument after the colon: one of sets.SETS, the twelve of Table 3; without one,
the data set that the encoder was trained on.
Paper, ResNet-50, ImageNet, and measured: not yet run.
"""

import difflib

from ml_collections import ConfigDict

from configs import common
from configs.sets import SETS, Set

# The data set of the encoder.
_OWN = Set("", "train_without_valid", "valid", "test", (0, 0, 0))


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  if arg and arg not in SETS:
    near = difflib.get_close_matches(arg, SETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
      f"Unknown data set {arg!r}; known are {', '.join(SETS)}.{hint}"
    )
  chosen = SETS[arg] if arg else _OWN
  config = common.protocol("transfer")
  config.data_name = chosen.data_name
  config.train_split = chosen.train
  config.valid_split = chosen.valid
  config.test_split = chosen.test
  # Instead of valid_split: that many of each class are held out of train_split,
  # drawn by seed; -1 for as many as test has.
  config.valid_per_class = chosen.per_class
  config.seed = 0
  # Images that are expected; 0 for any number.
  config.train_size, config.valid_size, config.test_size = chosen.sizes
  config.layout = chosen.layout  # said where the set cannot be opened
  # top1, mean_per_class, or map11: mean over classes of VOC2007's average
  # precision, where an image may have several.
  config.metric = chosen.metric
  config.crop_ratio = 1.0  # of the shorter side (App. D.2)
  config.batch_size = 256  # for features
  config.penalties = {"least": 1e-6, "most": 1e5, "count": 45}  # App. D.2
  return config
