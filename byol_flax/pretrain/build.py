"""Turns a config into the functions of a run, for all that run the step."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.bounds import MOST_WHOLE
from byol_flax.models import byol, precision
from byol_flax.pretrain import (
  device_augment,
  objective,
  optimizers,
  places,
  scaling,
  schedules,
  train_state,
  train_step,
)
from input_pipeline.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Built:
  """What a config means on a mesh, without data and without arrays.

  Attributes:
    network: online and target network.
    create_state: () -> ByolState on the mesh.
    abstract_state: its shapes and shardings.
    abstract_batch: shapes and shardings of a batch.
    make_views: batch -> views, the first part of the step.
    step_fn: (state, batch) -> (state, metrics); jitted, donates the state.
    total_steps: updates of the run.
    scaling: says what the batch size changed, "" if nothing.
  """

  network: byol.ByolNetwork
  create_state: Any
  abstract_state: train_state.ByolState
  abstract_batch: dict[str, jax.ShapeDtypeStruct]
  make_views: Any
  step_fn: Any
  total_steps: int
  scaling: str

  def compile_step(
    self, stage_done: Callable[[str], None] = lambda stage: None
  ) -> Any:
    """`step_fn`, compiled, before there is a batch to call it with.

    `stage_done` is called after "trace" and "compile".
    """
    lowered = self.step_fn.lower(self.abstract_state, self.abstract_batch)
    stage_done("trace")
    compiled = lowered.compile()
    stage_done("compile")
    return compiled


def build(
  config: Any,
  mesh: Mesh,
  *,
  num_examples: int,
  num_classes: int,
  resident: tuple[int, ...] | None = None,
  blocks: tuple[int, ...] | None = None,
) -> Built:
  """Turns a pre-training config into functions; compiles nothing.

  Args:
    config: as made by configs/byol.py.
    mesh: devices to train on.
    num_examples: size of the training split, which turns epochs into steps.
    num_classes: of the online classifier, 0 without labels.
    resident: shape of the images that lie on the devices, if they do.
    blocks: numbers of blocks in the groups of the encoder, instead of its
      architecture's own; from small ones preflight estimates the whole.

  Raises:
    UsageError: the config asks for something unknown or impossible.
  """
  objective.check(config)
  sharding.check_batch_size(
    config.batch_size,
    devices=mesh.size,
    accumulation_steps=config.accumulation_steps,
  )
  total_steps = int(config.epochs * num_examples / config.batch_size)
  warmup_steps = int(config.warmup_epochs * num_examples / config.batch_size)
  if not warmup_steps < total_steps <= MOST_WHOLE:
    raise UsageError(
      f"{config.epochs:g} epochs of {num_examples} images in batches of "
      f"{config.batch_size} are {total_steps} updates, of which "
      f"{warmup_steps} warm up. A run must have more updates than its warm-up, "
      f"and at most {MOST_WHOLE:,}. Take another batch_size, epochs or "
      "warmup_epochs."
    )
  network = byol.make_network(
    **config.model.to_dict(),
    num_classes=num_classes,
    **precision.types_of(config.dtype, mesh.devices.flat[0].platform),
  )
  if blocks:
    architecture = dataclasses.replace(
      network.encoder.architecture, blocks=blocks
    )
    network = network.clone(
      encoder=network.encoder.clone(architecture=architecture)
    )
  learning_rate = schedules.learning_rate_schedule(
    base_learning_rate=config.base_learning_rate,
    batch_size=config.batch_size,
    warmup_steps=warmup_steps,
    total_steps=total_steps,
  )
  scaled = scaling.scale(
    config,
    schedules.target_decay_schedule(
      base_target_decay=config.base_target_decay, total_steps=total_steps
    ),
  )
  tx = optimizers.lars(learning_rate, **config.optimizer)

  def abstract_state() -> train_state.ByolState:
    return train_state.create_byol_state(
      network,
      tx,
      seed=config.seed,
      image_size=config.augment.size,
      target_init=config.target_init,
    )

  place, size = places.place_of(config.augment), config.augment.size
  batch = device_augment.abstract_batch(
    mesh, place, batch_size=config.batch_size, size=size, resident=resident
  )
  make_views = device_augment.make_views(
    place,
    size=size,
    multiplies=any(
      view.brightness_mode == "multiply"
      for view in (config.augment.view1, config.augment.view2)
    ),
  )
  shapes = jax.eval_shape(abstract_state)
  kept = jax.tree.map(lambda x: sharding.cut(mesh, x.shape), shapes)
  whole = sharding.replicated(mesh)
  # One program for both networks, so that it is compiled once.
  init = jax.jit(
    functools.partial(
      train_state.init_variables,
      network,
      seed=config.seed,
      image_size=config.augment.size,
    ),
    out_shardings=kept.online.variables,
  )
  join = jax.jit(
    functools.partial(train_state.join, network, tx),
    donate_argnums=(0, 1),
    out_shardings=kept,
  )

  def create_state() -> train_state.ByolState:
    second = 0 if config.target_init == "copy" else 1
    return join(init(np.int32(0)), init(np.int32(second)))

  return Built(
    network=network,
    create_state=create_state,
    abstract_state=jax.tree.map(
      lambda x, how: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=how),
      shapes,
      kept,
    ),
    abstract_batch=batch,
    make_views=make_views,
    step_fn=jax.jit(
      train_step.make_train_step(
        network,
        settings=objective.Objective(**config.objective),
        learning_rate=learning_rate,
        target_decay=scaled.target_decay,
        accumulation_steps=config.accumulation_steps,
        gradient_dtype=config.gradient_dtype,
        mesh=mesh,
        make_views=make_views,
      ),
      donate_argnums=0,
      in_shardings=(kept, {name: x.sharding for name, x in batch.items()}),
      out_shardings=(kept, whole),
    ),
    total_steps=total_steps,
    scaling=scaled.sentence,
  )
