"""How learning rate, weight decay and target decay follow the batch size.

A config names the batch size for which its numbers were chosen. For κ times as
many images in a batch, a run of as many epochs makes κ times fewer updates, and
each must do the work of κ:

- A gradient moves weights by lr · g, so lr grows κ times. All configs do this,
  because their rates refer to 256 images.
- The decay is part of the gradient: an update shrinks weights by lr · λ. That
  grows κ times with lr, so λ itself stays.
- κ updates with decay τ leave τ^κ of the target as it was, so τ becomes τ^κ.
  This is the EMA scaling rule (Busbridge et al. 2023, arXiv 2307.13813, Def.
  1.2). Without it the target follows κ times slower, measured in images.
- The momentum stays, and remembers κ times as many images. This does not matter
  where the target remembers many more updates, 1 / (1 - τ^κ), than the momentum
  does, 1 / (1 - μ). Where they were 25 and 10, accuracy fell (BUILD_NOTES.md).

The schedules refer to shares of the run, so they need no change.
"""

import dataclasses
from typing import Any

import jax

from byol_flax.pretrain import schedules


@dataclasses.dataclass(frozen=True)
class Scaled:
  """What a batch size makes of a config.

  Attributes:
    target_decay: the schedule of τ, made for this batch size.
    sentence: what was changed, and why; "" if nothing was.
  """

  target_decay: schedules.Schedule
  sentence: str


def scale(config: Any, target_decay: schedules.Schedule) -> Scaled:
  """Applies `config.scaling`.

  Args:
    config: as made by configs/byol.py.
    target_decay: the schedule of τ, for the batch size of reference.
  """
  factor = config.batch_size / config.reference_batch_size
  if config.scaling == "linear" or factor == 1:
    return Scaled(target_decay, "")

  def scaled(step: jax.typing.ArrayLike) -> jax.Array:
    return target_decay(step) ** factor

  peak, before = (
    schedules.peak_of(config.base_learning_rate, size)
    for size in (config.batch_size, config.reference_batch_size)
  )
  base = config.base_target_decay
  # Without a target network there is no decay to be told of.
  decay = (
    f"the target decay from {base:g} to {base:g}^{factor:g} = "
    f"{base**factor:.6g}, "
    if config.objective.target == "average"
    else ""
  )
  sentence = (
    f"scaling=ema: a batch of {config.batch_size:,} is {factor:g} times the "
    f"{config.reference_batch_size:,} that the config was made for, so an "
    f"update does the work of {factor:g}: the peak of the learning rate goes "
    f"from {before:g} to {peak:g}, {decay}and the weight decay stays "
    f"{config.optimizer.weight_decay:g}, because the learning rate multiplies "
    "it"
  )
  return Scaled(scaled, sentence)
