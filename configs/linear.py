"""Linear evaluation of a frozen encoder (paper §4, App. C.1; Tables 1 and 7).

Command: byol evaluate --config=configs/linear.py --encoder=RUN --workdir=DIR
Argument after the colon: `table7=1` for all four rows of Table 7; `released=1`
for the authors' released code: one learning rate, all training images, nothing
chosen; `simclr=1` for the recipe of SimCLR's authors, which is like that one.
`--config.data_name=NAME` evaluates on another set than the encoder's,
such as imagenet2012 or places365_small (App. E).
Paper, ResNet-50: top-1 74.3, top-5 91.6. Measured: see BUILD_NOTES.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  given = common.parse_arg(arg, table7=0, released=0, simclr=0)
  config = common.trained_protocol("linear")
  # ImageNet's valid is the last 10,009 images of TFDS's order (App. C.1). The
  # other sets in `known_sets.KNOWN` have a valid too. Of any other set it is
  # its own validation split, or else every tenth image of train.
  config.train_split = "train_without_valid"
  config.valid_split = "valid"
  config.test_split = "test"

  config.epochs = 80.0  # App. C.1
  config.batch_size = 1024
  # One is chosen on valid. They are per 256 images: paper.md §5.1 says why.
  config.learning_rates = (0.4, 0.3, 0.2, 0.1, 0.05)
  config.momentum = 0.9  # Nesterov
  # "crop_flip", or "pretraining": view1 of the encoder's own augmentation.
  config.augmentations = ("crop_flip",)
  config.logit_regularisation = (False,)  # Table 7 (b); True uses α and β
  config.logit_clip = 20.0  # α
  config.logit_penalty = 0.01  # β
  config.evaluate_every_steps = 0  # on valid; 0 is only at the end
  if given["table7"]:
    config.augmentations = ("crop_flip", "pretraining")
    config.logit_regularisation = (False, True)
  if given["released"]:  # authors' configs/eval.py
    config.train_split = "train"
    config.valid_split = ""
    config.learning_rates = (0.2,)
    config.batch_size = 4096
  if given["simclr"]:  # SimCLR's App. B.6 (paper.md §5.4)
    config.train_split = "train"
    config.valid_split = ""
    config.epochs = 90.0
    config.learning_rates = (0.1,)
    config.batch_size = 4096
  return config
