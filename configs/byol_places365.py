"""BYOL, ResNet-50, Places365, 1000 epochs (paper App. E).

Command: byol train --config=configs/byol_places365.py --workdir=DIR
Hardware: as ImageNet; Places365 has 1.4 times the images.
Evaluation: configs/linear.py with --encoder=DIR is on Places365, and with
  --config.data_name=imagenet2012 on ImageNet.
Paper: 53.2 % top-1 on Places365 and 58.5 % on ImageNet, linear evaluation.
Measured: not yet run.
"""

from ml_collections import ConfigDict

from configs import byol


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, with ImageNet's hyper-parameters as in the paper."""
  config = byol.get_config(arg)
  config.data.name = "places365_small"
  return config
