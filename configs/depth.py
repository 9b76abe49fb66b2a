r"""Depth estimation by a fully convolutional network (paper §4, App. D.6).

Command: byol evaluate --config=configs/depth.py --encoder=RUN --workdir=DIR \
  --config.data_name=nyu:NYU_DIR
NYU_DIR holds nyu_depth_v2_labeled.mat and splits.mat; TFDS's nyu_depth_v2 and
folders of frames (depth:DIR) are read too.
Paper, Table 4b, ResNet-50: pct<1.25 84.6, rms 0.541, rel 0.129. Measured: not
yet run.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; it takes no argument after the colon."""
  common.parse_arg(arg)
  config = common.dense_protocol("depth")
  del config.classes_file  # depths have no classes
  config.data_name = "nyu:nyu_depth_v2"
  config.train_split = "train"
  config.test_split = "test"
  config.batch_size = 256  # App. D.6, as all that follows
  config.steps = 7_500
  config.learning_rate = 0.16
  config.weight_decay = 5e-4
  config.seeds = (0,)
  # Updates after which test is measured for the curve, which decides nothing; 0
  # is never.
  config.evaluate_every_steps = 0
  # c of the reverse Huber loss, as a share of the largest error (Laina et al.).
  config.huber_share = 0.2
  config.flip_probability = 0.5
  config.grayscale_probability = 0.3
  config.brightness = 32 / 255  # most that is added or subtracted
  config.saturation = (0.5, 1.5)  # factor, uniform
  config.hue = 0.2  # most that is turned either way, in turns
  # Of the figures that come first: "fcrn" compares with the whole frame as the
  # authors of the network do, "cropped" with what the network saw.
  config.convention = "fcrn"
  return config
