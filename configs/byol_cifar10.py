"""BYOL, ResNet-18 with the small stem, CIFAR-10 (not in the paper).

Command: byol train --config=configs/byol_cifar10.py --workdir=DIR
Augmentation and stem follow SimCLR App. B.9 (no blur); optimisation follows
solo-learn's recipe where BYOL's LARS allows (paper.md §8.3), with 200 epochs.
Others: 92.6 % top-1 after 1000 epochs (solo-learn). Measured: not yet run to
the end; BUILD_NOTES.md has 200 updates.
"""

from ml_collections import ConfigDict

from configs import byol, common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; takes no arguments."""
  common.parse_arg(arg)
  config = byol.get_config("architecture=resnet18")
  config.data.name = "cifar10"
  config.epochs = 200.0
  config.batch_size = config.reference_batch_size = 256
  config.base_learning_rate = 2.0  # as on Imagenette, the authors' small set
  config.base_target_decay = 0.99
  config.optimizer.weight_decay = 1e-6
  config.model.encoder.stem = "small"
  config.augment.size = 32
  for name in ("view1", "view2"):
    config.augment[name].blur_probability = 0.0
  config.evaluation.update(
    bank_split="train", every_steps=1950, batch_size=500, crop_ratio=1.0
  )
  config.checkpoint.keep_every = 0
  return config
