"""Trains and scores a whole network on labels, for several protocols."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import (
  features,
  finetuning,
  kept_pictures,
  linear_heads,
  training,
)
from byol_flax.evaluation.encoder import Encoder
from byol_flax.evaluation.protocol import Setting
from byol_flax.pretrain import schedules
from input_pipeline import augment, pipeline, rand_augment, sources, subsets


@flax.struct.dataclass
class Sgd:
  """What the trainings of a grid differ in.

  Attributes:
    peak: the learning rate after the warm-up, from which a cosine falls to 0.
    warmup_steps: updates in which the rate rises from 0.
    total_steps: of the training.
    weight_decay: see `finetuning.make_step`.
  """

  peak: float
  warmup_steps: int
  total_steps: int
  weight_decay: float


@dataclasses.dataclass(frozen=True)
class Functions:
  """What trainings of one network compute, jitted; each compiles once.

  Attributes:
    create_state: variables of the encoder -> state before the first update.
    update: (state, batch, `Sgd`) -> (state, metrics).
    guess: see `finetuning.make_guess_fn`.
    logits: see `finetuning.make_logit_fn`.
  """

  create_state: Callable[[Any], finetuning.FinetuneState]
  update: Callable[..., tuple[finetuning.FinetuneState, dict[str, Any]]]
  guess: features.FeatureFn
  logits: features.FeatureFn


def make_functions(
  config: Any,
  encoder: Encoder,
  mesh: Mesh,
  *,
  num_classes: int,
  smoothing: float = 0.0,
) -> Functions:
  """Makes what trainings compute, apart from what they read.

  Args:
    config: of an evaluation; it has `momentum` and `seed`.
    encoder: its variables may be shapes only.
    mesh: where the trainings run.
    num_classes: K.
    smoothing: see `finetuning.make_step`.
  """
  whole = sharding.replicated(mesh)
  step = finetuning.make_step(
    encoder.module, momentum=config.momentum, smoothing=smoothing
  )

  def update(
    state: finetuning.FinetuneState, batch: Any, sgd: Sgd
  ) -> tuple[finetuning.FinetuneState, dict[str, Any]]:
    rate = schedules.warmup_cosine(
      state.step,
      peak=sgd.peak,
      warmup_steps=sgd.warmup_steps,
      total_steps=sgd.total_steps,
    )
    return step(state, batch, rate, jnp.asarray(sgd.weight_decay))

  y = encoder.representation
  create_state = functools.partial(
    finetuning.create_state,
    width=y.shape[-1],
    num_classes=num_classes,
    seed=config.seed,
    dtype=y.dtype,
  )
  return Functions(
    create_state=jax.jit(create_state, out_shardings=whole),
    update=jax.jit(update, donate_argnums=0, out_shardings=(whole, whole)),
    guess=finetuning.make_guess_fn(encoder.module, mesh),
    logits=finetuning.make_logit_fn(encoder.module, mesh),
  )


def make_training(
  setting: Setting,
  encoder: Encoder,
  functions: Functions,
  *,
  name: str,
  source: sources.Source,
  sgd: Sgd,
  policy: rand_augment.RandAugment | None = None,
) -> training.Training:
  """Makes a training on random crops and flips.

  Args:
    setting: of the evaluation; its config has `batch_size` and `seed`.
    encoder: what the training begins with; the classifier is new.
    functions: those of `encoder`.
    name: of the training's folder.
    source: labelled images.
    sgd: how it is trained, and how long.
    policy: what changes an image after crop and flip, if anything does.
  """
  config = setting.config
  view = augment.View(**encoder.config["augment"]["view1"])
  one_view = augment.OneView(
    size=encoder.crop.size, view=augment.crop_and_flip(view), policy=policy
  )
  return training.Training(
    name=name,
    source=source,
    stream=functools.partial(
      pipeline.labelled_stream, transform=one_view, seed=config.seed
    ),
    row_bytes=one_view.row_bytes,
    batch_size=config.batch_size,
    total_steps=sgd.total_steps,
    create_state=lambda: functions.create_state(encoder.variables),
    step_fn=lambda state, batch: functions.update(state, batch, sgd),
    evaluate=lambda state: {},
    evaluate_every=0,
    headline=("loss", "train/loss"),
  )


def logits(
  setting: Setting,
  functions: Functions,
  state: finetuning.FinetuneState,
  split: sources.Source,
) -> tuple[np.ndarray, np.ndarray]:
  """Logits [N, K] of what can be read of a split, and its numbers there [N].

  Raises:
    NonFiniteError: some logits are not finite.
  """
  (found,) = _of_splits(
    setting, functions.logits, state, [subsets.Numbered(split)]
  )
  training.check_finite(bool(np.isfinite(found["logits"]).all()), split)
  return found["logits"], found["label"]


def top1(
  setting: Setting,
  functions: Functions,
  state: finetuning.FinetuneState,
  split: sources.Source,
) -> float:
  """Top-1 of a trained network, on valid."""
  (found,) = _of_splits(setting, functions.guess, state, [split])
  return float(linear_heads.accuracies(found["guesses"], found["label"])[0, 0])


def report(
  setting: Setting,
  functions: Functions,
  state: finetuning.FinetuneState,
  split: sources.Source,
  name: str = "",
) -> dict[str, Any]:
  """What a trained network is reported with, on test.

  Returns:
    "test", top-1 and top-5, and "confusions", see
    `kept_pictures.keep_guesses`, which keeps the guesses of row `name`.
  """
  (found,) = _of_splits(setting, functions.guess, state, [split])
  guesses, label = found["guesses"], found["label"]
  return {
    "test": linear_heads.accuracies(guesses, label)[0].tolist(),
    "confusions": kept_pictures.keep_guesses(
      setting.workdir, name, label, guesses[:, 0, 0], split.class_names
    ),
  }


def _of_splits(
  setting: Setting,
  function: features.FeatureFn,
  state: finetuning.FinetuneState,
  splits: Sequence[sources.Source],
) -> list[features.Features]:
  """What `function` gives of all images, by split."""
  return features.extract_splits(
    function,
    {"params": state.params, "batch_stats": state.batch_stats},
    splits,
    setting.make_reader(),
    mesh=setting.mesh,
    part_done=setting.processes.part_done,
    missed=setting.missed,
  )
