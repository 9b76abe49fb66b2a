r"""A ResNet trained with labels from the start (paper App. C.2, Table 9).

Command: byol evaluate --config=configs/supervised.py \\
  --encoder=random:configs/byol_r50x1.py --workdir=DIR
Argument after the colon: `rand_augment=1` for what the authors do with large
networks (App. C.2).
Every other protocol can then take DIR/network as its encoder.
Paper, ResNet-50: top-1 76.4, top-5 92.9. Measured: not yet run.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  given = common.parse_arg(arg, rand_augment=0)
  config = common.trained_protocol("supervised")
  config.train_split = "train"
  config.test_split = "test"
  config.epochs = 200.0  # App. C.2: up to 200
  config.warmup_epochs = 5.0
  # Not stated in the paper: Goyal et al. 2017, per 256 images.
  config.batch_size = 1024
  config.base_learning_rate = 0.1
  config.momentum = 0.9  # Nesterov
  config.weight_decay = 1e-4
  config.label_smoothing = 0.1
  # Operations on each image, after crop and flip, and their magnitude of 10.
  # Not stated in the paper: Cubuk et al. 2020 take 2 and 9 for ResNet-50.
  config.rand_augment = {"layers": 0, "magnitude": 9.0}
  if given["rand_augment"]:
    config.rand_augment.layers = 2
  return config
