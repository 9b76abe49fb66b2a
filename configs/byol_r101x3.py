"""BYOL, ResNet-101 ×3, ImageNet, 1000 epochs: one of the published encoders.

Command: byol train --config=configs/byol_r101x3.py --workdir=DIR
Hardware: 512 TPU v3 cores for the paper's ResNet-50 (§3.3); 382M parameters.
Paper: 78.4 % top-1, 94.2 % top-5, linear evaluation (Table 9).
Measured: not yet run.
"""

from ml_collections import ConfigDict

from configs import byol


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` as in configs/byol.py, such as "epochs=100"."""
  return byol.get_config(f"architecture=resnet101,width=3,{arg or ''}")
