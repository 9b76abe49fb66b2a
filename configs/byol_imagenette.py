"""BYOL, ResNet-18 at 128 pixels, Imagenette: the authors' one-GPU set-up.

Command: byol train --config=configs/byol_imagenette.py --workdir=DIR
Hardware, time: one V100, about 4 hours (authors' README).
Authors: about 92.3 % top-1 of the online classifier. Measured: not yet run.
"""

from ml_collections import ConfigDict

from configs import byol, common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; takes no arguments."""
  common.parse_arg(arg)
  config = byol.get_config("architecture=resnet18")  # 1000-epoch preset
  config.data.name = "imagenette/160px-v2"
  config.batch_size = config.reference_batch_size = 256
  config.base_learning_rate = 2.0
  config.optimizer.weight_decay = 1e-6
  config.augment.size = 128
  config.evaluation.update(
    bank_split="train", every_steps=2000, batch_size=256, crop_ratio=0.8
  )
  config.checkpoint.keep_every = 0
  return config
