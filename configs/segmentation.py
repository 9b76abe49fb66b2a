r"""Semantic segmentation by an FCN (paper §4, App. D.4, Table 4a).

Command: byol evaluate --config=configs/segmentation.py --encoder=RUN \
  --workdir=DIR --config.data_name=voc:VOCdevkit/VOC2012
Any other set in the layout of VOC is read too; without SBD's masks take
--config.train_split=train.
Paper, ResNet-50: mean IoU 76.3. Measured: not yet run.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; it takes no argument after the colon."""
  common.parse_arg(arg)
  config = common.dense_protocol("segmentation")
  config.data_name = "voc:VOCdevkit/VOC2012"
  config.train_split = "train_aug"  # train, and SBD's masks
  config.test_split = "val"
  # Images of train that the rate is chosen on, drawn by seed; 0: it is not
  # chosen, and learning_rates has one.
  config.held_out = 2119  # App. D.4
  config.seed = 0  # of these images, and of the trainings that choose
  # Updates after which a training is measured for its curve, on held-out images
  # or, once the rate is chosen, on test, which decides nothing; 0 is never.
  config.evaluate_every_steps = 0
  config.batch_size = 16
  config.steps = 30_000
  config.learning_rates = tuple(10 ** (k / 2 - 3) for k in range(5))
  config.weight_decay = 1e-4
  config.seeds = (0, 1, 2, 3, 4)  # trainings at the chosen rate
  config.scales = (0.5, 2.0)  # of an image, uniform
  config.crop_size = 513
  config.flip_probability = 0.5
  config.output_stride = 16  # or 32, without dilation
  # "centre_crop" of crop_size, or "whole" image, as MoCo.
  config.inference = "centre_crop"
  return config
