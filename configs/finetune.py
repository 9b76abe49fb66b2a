r"""Transfer by fine-tuning on another data set (paper App. D.3, Table 3).

Command: byol evaluate --config=configs/finetune.py:pets --encoder=RUN \
  --workdir=DIR [--config.data_dir=TFDS_DIR]
Arguments after the colon, with commas between: one of sets.SETS, the twelve of
Table 3 (without one, the data set that the encoder was trained on); `random=1`
for the steps and grids of the baseline that begins with random weights
(`--encoder=random:CONFIG`).
Paper, ResNet-50 on CIFAR-10: 97.8. Measured: not yet run.
"""

from ml_collections import ConfigDict

from configs import common, sets


def half_decades(low: float, high: float) -> tuple[float, ...]:
  """10^low, ..., 10^high, two in each decade."""
  count = round(2 * (high - low)) + 1
  return tuple(10 ** (low + k / 2) for k in range(count))


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  chosen, rest = sets.choose(arg)
  given = common.parse_arg(rest, random=0)
  config = common.trained_protocol("finetune")
  sets.add_splits(config, chosen)

  config.batch_size = 256  # App. D.3, as all that follows
  config.steps = 20_000
  config.learning_rates = half_decades(-4, -1)
  # Products of learning rate and weight decay; 0 is none.
  config.weight_decays = (0.0, *half_decades(-6, -3))
  config.momentum = 0.9  # Nesterov
  if given["random"]:  # SimCLR App. B.8
    config.steps = 40_000
    config.learning_rates = half_decades(-3, 0)
    config.weight_decays = half_decades(-5, -1.5)
  # So many points of the grid, drawn by seed, in place of all; 0 is all.
  config.budget = 0
  return config
