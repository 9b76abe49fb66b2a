"""BYOL on scikit-learn's handwritten digits: minutes on a laptop, offline.

Command: make demo, or
  byol train --config=configs/byol_digits.py --workdir=runs/digits
Hardware, time and result: two CPU cores; README.md has the table, and
BUILD_NOTES.md the command and the trials that led to these settings.
"""

from ml_collections import ConfigDict

from configs import byol, common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; takes no arguments."""
  common.parse_arg(arg)
  config = byol.get_config("architecture=resnet8,width=2")
  config.data.name = "digits"
  config.epochs = 110.0
  config.warmup_epochs = 5.0
  config.batch_size = config.reference_batch_size = 64
  # Some 2,500 updates must do for which ImageNet has 300,000.
  config.base_learning_rate = 12.0
  config.base_target_decay = 0.99
  config.model.encoder.stem = "small"
  config.model.projector.update(hidden_size=128, output_size=32)
  config.model.predictor.update(hidden_size=128, output_size=32)
  config.augment.size = 9  # the images have 8 × 8 pixels
  for name in ("view1", "view2"):
    # A mirrored digit is another sign; a digit has few edges and no colour.
    config.augment[name].update(
      crop_area=(0.6, 1.0),
      crop_aspect=(0.6, 1.67),
      flip_probability=0.0,
      brightness=0.1,
      saturation=0.0,
      hue=0.0,
      grayscale_probability=0.0,
      blur_probability=0.0,
      solarize_probability=0.0,
    )
  config.loader.num_workers = 1  # small images: one worker keeps two cores busy
  config.checkpoint.update(every_steps=400, keep_every=0)
  config.report.every_steps = 20
  config.evaluation.update(
    bank_split="train",
    neighbours=5,
    every_steps=600,
    batch_size=360,
    crop_ratio=1.0,
  )
  return config
