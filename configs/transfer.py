"""Linear transfer to other data sets (paper §4, App. D; Tables 3, 8 and 10).

Command: byol evaluate --config=configs/transfer.py:pets --encoder=RUN
  --workdir=DIR [--config.data_dir=TFDS_DIR]
Argument after the colon: one of sets.SETS, the twelve of Table 3; without one,
the data set that the encoder was trained on.
Paper, ResNet-50, ImageNet, and measured: not yet run.
"""

from ml_collections import ConfigDict

from configs import common, sets


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  chosen, rest = sets.choose(arg)
  common.parse_arg(rest)
  config = common.protocol("transfer")
  sets.add_splits(config, chosen)
  config.seed = 0
  config.crop_ratio = 1.0  # of the shorter side (App. D.2)
  config.batch_size = 256  # for features
  config.penalties = {"least": 1e-6, "most": 1e5, "count": 45}  # App. D.2
  return config
