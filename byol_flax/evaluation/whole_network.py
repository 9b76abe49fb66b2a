"""Trains and scores a whole network on labels, for several protocols."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import (
  features,
  finetuning,
  linear_heads,
  training,
)
from byol_flax.evaluation.encoder import Encoder
from byol_flax.evaluation.protocol import Setting
from byol_flax.pretrain import schedules
from input_pipeline import augment, rand_augment, sources, subsets


def make_functions(
  config: Any,
  encoder: Encoder,
  mesh: Mesh,
  *,
  num_classes: int,
  learning_rate: schedules.Schedule,
  weight_decay: float,
  smoothing: float = 0.0,
) -> tuple[Callable[[Any], finetuning.FinetuneState], Any]:
  """What a training computes, apart from what it reads.

  Args:
    config: of an evaluation; it has `momentum` and `seed`.
    encoder: its variables may be shapes only.
    mesh: where the training runs.
    num_classes: K.
    learning_rate: step -> rate.
    weight_decay: see `finetuning.make_step`.
    smoothing: see `finetuning.make_step`.

  Returns:
    Variables of the encoder -> state before the first update, and
    `finetuning.make_step`; both jitted.
  """
  whole = sharding.replicated(mesh)
  step = finetuning.make_step(
    encoder.module,
    learning_rate=learning_rate,
    momentum=config.momentum,
    weight_decay=weight_decay,
    smoothing=smoothing,
  )
  y = encoder.representation
  create_state = jax.jit(
    functools.partial(
      finetuning.create_state,
      width=y.shape[-1],
      num_classes=num_classes,
      seed=config.seed,
      dtype=y.dtype,
    ),
    out_shardings=whole,
  )
  return create_state, jax.jit(
    step, donate_argnums=0, out_shardings=(whole, whole)
  )


def make_training(
  setting: Setting,
  encoder: Encoder,
  *,
  name: str,
  source: sources.Source,
  total_steps: int,
  learning_rate: schedules.Schedule,
  weight_decay: float,
  smoothing: float = 0.0,
  policy: rand_augment.RandAugment | None = None,
) -> training.Training:
  """Makes a training by `finetuning`'s update, on random crops and flips.

  Args:
    setting: of the evaluation; its config has `batch_size`, `momentum`, `seed`.
    encoder: what the training begins with; the classifier is new.
    name: of the training's folder.
    source: labelled images.
    total_steps: updates.
    learning_rate: step -> rate.
    weight_decay: see `finetuning.make_step`.
    smoothing: see `finetuning.make_step`.
    policy: what changes an image after crop and flip, if anything does.
  """
  config = setting.config
  create_state, update = make_functions(
    config,
    encoder,
    setting.mesh,
    num_classes=source.num_classes,
    learning_rate=learning_rate,
    weight_decay=weight_decay,
    smoothing=smoothing,
  )
  view = augment.View(**encoder.config["augment"]["view1"])
  return training.Training(
    name=name,
    source=source,
    transform=augment.OneView(
      size=encoder.crop.size, view=augment.crop_and_flip(view), policy=policy
    ),
    batch_size=config.batch_size,
    total_steps=total_steps,
    seed=config.seed,
    create_state=lambda: create_state(encoder.variables),
    step_fn=update,
    evaluate=lambda state: {},
    evaluate_every=0,
    headline=("loss", "train/loss"),
  )


def guesses(
  setting: Setting,
  encoder: Encoder,
  state: finetuning.FinetuneState,
  counted: Sequence[sources.Source],
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Classes by falling logits, int [N, 1, 5], and labels [N] of each split."""
  found = features.extract_splits(
    finetuning.make_guess_fn(encoder.module, setting.mesh),
    {"params": state.params, "batch_stats": state.batch_stats},
    counted,
    setting.make_reader(),
    mesh=setting.mesh,
    part_done=setting.processes.part_done,
  )
  return [(split["guesses"], split["label"]) for split in found]


def logits(
  setting: Setting,
  encoder: Encoder,
  state: finetuning.FinetuneState,
  split: sources.Source,
) -> tuple[np.ndarray, np.ndarray]:
  """Logits [N, K] of what can be read of a split, and its numbers there [N]."""
  (found,) = features.extract_splits(
    finetuning.make_logit_fn(encoder.module, setting.mesh),
    {"params": state.params, "batch_stats": state.batch_stats},
    [subsets.Numbered(split)],
    setting.make_reader(),
    mesh=setting.mesh,
    part_done=setting.processes.part_done,
  )
  return found["logits"], found["label"]


def scores(
  setting: Setting,
  encoder: Encoder,
  state: finetuning.FinetuneState,
  counted: Sequence[sources.Source],
) -> list[list[float]]:
  """Top-1 and top-5 of a trained network on each split."""
  return [
    linear_heads.accuracies(*split)[0].tolist()
    for split in guesses(setting, encoder, state, counted)
  ]
