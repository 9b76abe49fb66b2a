"""BYOL, ResNet-50 ×1, ImageNet, 1000 epochs: one of the published encoders.

Command: byol train --config=configs/byol_r50x1.py --workdir=DIR
Hardware: 512 TPU v3 cores for the paper's ResNet-50 (§3.3); 24M parameters.
Paper: 74.3 % top-1, 91.6 % top-5, linear evaluation (Table 1a).
Measured: not yet run.
"""

from ml_collections import ConfigDict

from configs import byol


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` as in configs/byol.py, such as "epochs=100"."""
  return byol.get_config(f"architecture=resnet50,width=1,{arg or ''}")
