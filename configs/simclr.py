"""SimCLR on ImageNet, by the recipe of its own authors (arXiv 2002.05709).

Command: byol train --config=configs/simclr.py --workdir=DIR
Arguments after the colon: architecture, width, epochs (any), batch_size.
Its own evaluations: configs/linear.py:simclr=1, and
configs/semi_supervised.py:simclr=1,share=0.01 or share=0.1.
Paper, ResNet-50, 1000 epochs: top-1 69.3, top-5 89.0, linear evaluation. With
1 % of the labels 48.3 and 75.5, with 10 % 65.6 and 87.8 (BYOL's Tables 1, 2).
Their README has 64.5 after 100 epochs. Measured: not yet run.

The numbers are those of github.com/google-research/simclr; each names its file.
Four things are not theirs. BatchNorm has statistics for each view, not for both
together. The learning rate stands outside of the momentum (paper.md §3.1). Each
image is blurred by a σ of its own; theirs share one in the batch of a core.
Strided convolutions pad as TensorFlow's SAME does, not alike on both sides.
"""

from ml_collections import ConfigDict

from configs import byol, common

_TEMPERATURE = 0.1  # README.md, for ImageNet
# Features of an encoder at width 1, if they are not 2048.
_FEATURES = {"resnet8": 64, "resnet18": 512, "resnet34": 512}


def view(strength: float) -> ConfigDict:
  """The distribution of both views (data_util.py; paper.md §4.8).

  Args:
    strength: of the colours: 1 on ImageNet, 0.5 on CIFAR-10 (README.md).
  """
  found = byol.view(blur_probability=0.5, solarize_probability=0.0)
  found.update(
    crop_sampling="retried",
    # Version 1 adds; version 2, with deeper heads, multiplies.
    brightness_mode="add",
    brightness=0.8 * strength,
    contrast=0.8 * strength,
    saturation=0.8 * strength,
    hue=0.2 * strength,
  )
  return found


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; `arg` is explained at the top of this file."""
  given = common.parse_arg(
    arg, architecture="resnet50", width=1, epochs=1000, batch_size=4096
  )
  architecture, width = given["architecture"], given["width"]
  config = byol.get_config(f"architecture={architecture},width={width}")
  config.epochs = float(given["epochs"])
  config.batch_size = config.reference_batch_size = given["batch_size"]
  config.base_learning_rate = 0.3  # run.py, like warm-up and momentum
  config.optimizer.weight_decay = 1e-6  # run.py
  config.objective.update(
    negatives_weight=1.0,
    temperature=_TEMPERATURE,
    target="online",
    # SimCLR's loss has no factor of 2α as the paper's family has (paper.md
    # §9.4). With that factor LARS would move the weights alike, but biases and
    # BatchNorm's parameters a fifth as far, and the decay would weigh more.
    multiplier=1 / (2 * _TEMPERATURE),
  )
  config.model.encoder.zero_init_last = True  # resnet.py: init_zero
  features = int(_FEATURES.get(architecture, 2048) * width)
  head = {"output_size": 128, "final_norm": True}  # model_util.py
  config.model.projector.update(hidden_size=features, **head)
  config.model.predictor.update(layers=0, **head)
  config.model.initializer = "simclr"
  config.model.input_scaling = "unit"
  for name in ("view1", "view2"):
    config.augment[name] = view(strength=1.0)
  return config
