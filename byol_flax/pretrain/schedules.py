"""Learning rate and target decay as pure functions of the step.

A step counts completed updates, so update number k (from 0) uses the value at
k (paper.md §10 row 7: the authors' code, not the 1-based pseudo-code).
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

IMAGES_OF_A_RATE = 256  # of a batch, to which a base learning rate refers

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


def peak_of(base_learning_rate: float, batch_size: int) -> float:
  """The rate of a batch, from one that refers to `IMAGES_OF_A_RATE` images."""
  return base_learning_rate * batch_size / IMAGES_OF_A_RATE


def warmup_cosine(
  step: jax.typing.ArrayLike,
  *,
  peak: jax.Array | float,
  warmup_steps: jax.Array | int,
  total_steps: jax.Array | int,
) -> jax.Array:
  """Linear warm-up from 0 to `peak`, then one cosine to 0; float [].

  All may be traced, so that one program serves several rates.
  """
  step = jnp.asarray(step, float)
  rising = peak * step / jnp.maximum(warmup_steps, 1)
  progress = (step - warmup_steps) / (total_steps - warmup_steps)
  falling = peak * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1))) / 2
  return jnp.where(step < warmup_steps, rising, falling)


def stepwise(
  step: jax.typing.ArrayLike,
  *,
  peak: jax.Array | float,
  warmup_steps: jax.Array | int,
  warmup_factor: jax.Array | float,
  drops: Sequence[jax.Array | int],
) -> jax.Array:
  """Linear warm-up to `peak`, then a tenth after each drop; float [].

  All may be traced, so that one program serves several rates.

  Args:
    step: completed updates.
    peak: the rate after the warm-up.
    warmup_steps: updates before the peak; 0 starts at the peak.
    warmup_factor: the share of `peak` at step 0.
    drops: completed updates from which on the rate is a tenth of what it was.
  """
  step = jnp.asarray(step, float)
  share = jnp.clip(step / jnp.maximum(warmup_steps, 1), 0, 1)
  rising = warmup_factor + (1 - warmup_factor) * share
  fallen = sum(jnp.asarray(step >= drop, float) for drop in drops)
  return peak * jnp.where(step < warmup_steps, rising, 1.0) * 0.1**fallen


def learning_rate_schedule(
  *,
  base_learning_rate: float,
  batch_size: int,
  warmup_steps: int,
  total_steps: int,
) -> Schedule:
  """Linear warm-up from 0, then one cosine to 0 (paper §3.3).

  Args:
    base_learning_rate: per 256 images of global batch.
    batch_size: global, in images.
    warmup_steps: updates before the peak; 0 starts at the peak.
    total_steps: updates of the whole run.

  Returns:
    step [] int -> learning rate [] float.

  Raises:
    ValueError: the warm-up is not shorter than the run.
  """
  if not 0 <= warmup_steps < total_steps:
    raise ValueError(
      f"The warm-up ({warmup_steps} steps) must be shorter than the run "
      f"({total_steps} steps)."
    )
  return functools.partial(
    warmup_cosine,
    peak=peak_of(base_learning_rate, batch_size),
    warmup_steps=warmup_steps,
    total_steps=total_steps,
  )


def target_decay_schedule(
  *, base_target_decay: float, total_steps: int
) -> Schedule:
  """Target decay τ from its base value to 1 on a cosine (paper §3.3).

  Args:
    base_target_decay: τ at step 0, in [0, 1].
    total_steps: updates of the whole run.

  Returns:
    step [] int -> τ [] float.
  """

  def target_decay(step: jax.typing.ArrayLike) -> jax.Array:
    progress = jnp.clip(jnp.asarray(step, float) / total_steps, 0, 1)
    remaining = (1 + jnp.cos(jnp.pi * progress)) / 2
    return 1 - (1 - base_target_decay) * remaining

  return target_decay
