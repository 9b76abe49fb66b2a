"""Runs that begin with the weights of another one."""

import dataclasses
import functools

import jax
import numpy as np

from byol_flax import sharding
from byol_flax.pretrain import (
  initial_state,
  optimizers,
  origin,
  train_state,
)
from byol_flax.runs import checkpoint, distributed, records
from tests import tiny

ALONE = distributed.Processes()
CONFIG = {
  "model": {"encoder": {"padding": "same"}, "batch_norm": {"epsilon": 1e-5}},
  "batch_size": 64,
  "seed": 0,
  "reference_batch_size": 64,
}
RECORD = {
  "config": CONFIG,
  "code_version": "c0de",
  "seconds": 1.0,
}


@dataclasses.dataclass
class Run:
  """What the new run is known by."""

  abstract_state: train_state.ByolState
  total_steps: int = 100


def some_state(seed, devices=8, **changes):
  """A state as it lies on a mesh, with numbers that depend on `seed`, and it.

  Of `changes`, `num_classes` and modules go to the network.
  """
  mesh = sharding.make_mesh(jax.devices()[:devices])
  rng = np.random.default_rng(seed)

  def draw(x):
    values = rng.integers(1, 1000, x.shape).astype(x.dtype)
    return jax.device_put(values, sharding.cut(mesh, x.shape))

  return jax.tree.map(draw, _shapes(**changes)), mesh


@functools.cache
def _shapes(**changes):
  """Of a state; to trace how it is made takes most of the time of a test."""
  tx = optimizers.lars(
    lambda step: 0.1, weight_decay=0.0, momentum=0.9, trust_coefficient=1e-3
  )
  return jax.eval_shape(
    lambda: train_state.create_byol_state(
      tiny.make_network().clone(**changes),
      tx,
      seed=0,
      image_size=tiny.SIZE,
      target_init="independent",
    )
  )


def save_source(folder):
  """Makes a workdir with checkpoints 10 and 20; returns the state of 20."""
  state, _ = some_state(1)
  checkpoints = checkpoint.Checkpoints(
    folder,
    every_steps=1,
    every_minutes=1,
    keep_last=2,
    keep_every=0,
    processes=ALONE,
  )
  for step in (10, 20):
    position = {"seed": 1, "next_update": step}
    checkpoints.save(step, state, {**RECORD, "data_position": position})
  checkpoints.close()
  return state


def begin(
  text, state, mesh, folder, takes="networks", restart=False, config=CONFIG
):
  return initial_state.open_beginning(
    origin.parse(text, takes),
    Run(state),
    mesh,
    str(folder),
    config,
    restart,
    ALONE,
  )


def whole_config(**changes):
  """Of a run like the one in the source, as its record is completed."""
  config = records.completed({"config": CONFIG})["config"]
  return {**config, **changes}


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)
