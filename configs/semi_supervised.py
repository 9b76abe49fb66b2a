r"""Fine-tuning on a part of ImageNet's labels (paper §4, App. C.1; Table 2).

Command: byol evaluate --config=configs/semi_supervised.py --encoder=RUN \
  --workdir=DIR
Argument after the colon: `share=0.01` for that share alone, in [0.01, 1]; with
1 all labels (Table 8). `simclr=1`, with a share of 0.01 or 0.1, for the recipe
of SimCLR's authors, who choose nothing; `--config.subset_data` has their lists.
Paper, ResNet-50: 1 % top-1 53.2, top-5 78.4; 10 % 68.8, 89.0; all 77.7, 93.9.
Measured: see BUILD_NOTES.md.
"""

from ml_collections import ConfigDict

from configs import common

# Share of the labels -> epochs (SimCLR's App. B.5; paper.md §5.4).
SIMCLR_EPOCHS = {0.01: 60.0, 0.1: 30.0}


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  given = common.parse_arg(arg, share=0.0, simclr=0)
  config = common.trained_protocol("semi_supervised")
  config.train_split = "train_without_valid"  # as in configs/linear.py
  config.valid_split = "valid"
  config.test_split = "test"
  # Class-balanced parts of train_split, drawn by seed as the authors did for
  # their figures. A list of each is written to the workdir.
  config.shares = (given["share"],) if given["share"] else (0.01, 0.1)
  config.subset_seed = 0
  # A list of file names instead, such as SimCLR's, which Table 2 uses.
  config.subset_file = ""
  # Or the data set whose train has these images, by their file names:
  # imagenet2012_subset/1pct and /10pct are SimCLR's lists.
  config.subset_data = ""

  config.batch_size = 1024  # App. C.1, like all that follows
  config.epochs = (30.0, 50.0)
  config.learning_rates = (0.01, 0.02, 0.05, 0.1, 0.005)  # per 256 images
  config.momentum = 0.9  # Nesterov
  config.weight_decay = 0.0
  if given["simclr"]:
    if given["share"] not in SIMCLR_EPOCHS:
      raise ValueError(
        "SimCLR's epochs depend on the share of the labels: write "
        "simclr=1,share=0.01 or simclr=1,share=0.1."
      )
    config.batch_size = 4096
    config.epochs = (SIMCLR_EPOCHS[given["share"]],)
    config.learning_rates = (0.05,)
  return config
