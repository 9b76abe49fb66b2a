"""Trains a network with labels from the start (paper App. C.2, Table 9).

Other protocols can evaluate the folder of its training as an encoder.
"""

import dataclasses
from typing import Any

from byol_flax.evaluation import encoder as encoder_lib
from byol_flax.evaluation import splits, training, whole_network
from byol_flax.evaluation.protocol import Setting, data_of
from byol_flax.pretrain import schedules
from input_pipeline import rand_augment, sources
from input_pipeline.errors import UsageError

_FOLDER = "network"


def run(setting: Setting) -> dict[str, Any]:
  """The protocol of configs/supervised.py."""
  config, encoder = setting.config, setting.encoder
  if encoder.has_averages:
    raise UsageError(
      f"--encoder={encoder.provenance['encoder']} was trained already; "
      "expected random:CONFIG, which names the network to train from the start."
    )
  train, test = (
    setting.open_split("train_split"),
    setting.open_split("test_split"),
  )
  setting.check_splits(train, test)
  splits.check_batch(config.batch_size, train, setting.mesh)
  splits.check_epochs(config.epochs, train, config.batch_size)
  total_steps = splits.total_steps(config.epochs, train, config.batch_size)
  warmup_steps = splits.total_steps(
    config.warmup_epochs, train, config.batch_size
  )
  if warmup_steps >= total_steps:
    raise UsageError(
      f"warmup_epochs is {config.warmup_epochs:g} of {config.epochs:g} epochs; "
      "expected fewer."
    )
  setting = _recorded(setting, train)
  encoder = setting.encoder
  functions = whole_network.make_functions(
    config,
    encoder,
    setting.mesh,
    num_classes=train.num_classes,
    smoothing=config.label_smoothing,
  )
  what = whole_network.make_training(
    setting,
    encoder,
    functions,
    name=_FOLDER,
    source=train,
    sgd=whole_network.Sgd(
      peak=schedules.peak_of(config.base_learning_rate, config.batch_size),
      warmup_steps=warmup_steps,
      total_steps=total_steps,
      weight_decay=config.weight_decay,
    ),
    policy=policy_of(config),
  )
  found = training.once(
    setting,
    "scores",
    lambda: whole_network.report(
      setting, functions, training.run(what, setting), test
    ),
  )
  top1, top5 = found["test"]
  setting.tell(
    f"supervised: top-1 {top1:.3f}, top-5 {top5:.3f} on test; --encoder="
    f"{setting.workdir}/{_FOLDER} opens it for other protocols"
  )
  return {
    "top1": top1,
    "top5": top5,
    "confusions": found.get("confusions"),  # older versions did not keep them
    "selection": "Nothing is chosen: the last update counts.",
    "updates": total_steps,
    "splits": setting.describe(train, test),
    "choices": [
      "The paper states neither learning rate nor batch size (App. C.2).",
      "Nor does it state what RandAugment of large networks was; here it has "
      f"{config.rand_augment.layers} operations of magnitude "
      f"{config.rand_augment.magnitude:g}.",
    ],
  }


def _recorded(setting: Setting, train: sources.Source) -> Setting:
  """The same, with an encoder whose config has the data that it trains on.

  Checkpoints record that config, and whoever opens them is told of that data.
  """
  plain = encoder_lib.plain_config(setting.encoder.config)
  name, folder = data_of(setting.config, plain)
  config = {
    **plain,
    "data": {**plain["data"], "name": name, "split": train.split},
    "loader": {**plain["loader"], "data_dir": folder},
  }
  encoder = dataclasses.replace(setting.encoder, config=config)
  return dataclasses.replace(setting, encoder=encoder)


def policy_of(config: Any) -> rand_augment.RandAugment | None:
  """RandAugment as the config has it, or None if it has no layers."""
  policy = rand_augment.RandAugment(**config.rand_augment)
  return policy if policy.layers else None
