"""What a step reports: accuracies and signals of collapse."""

import jax
import jax.numpy as jnp

from byol_flax.pretrain import losses


def labelled_mean(values: jax.Array, labels: jax.Array) -> jax.Array:
  """Mean of `values` over what has a label; 0 where nothing has.

  Values and labels are [B], or [B, K] where an example has a label for each of
  K classes; -1 is none.
  """
  labelled = labels >= 0
  total = jnp.sum(jnp.where(labelled, values, 0))
  return total / jnp.maximum(jnp.sum(labelled), 1)


def in_top_k(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
  """Whether the label is among the k largest logits.

  Args:
    logits: [B, K].
    labels: [B] int; -1 is never among them.
    k: larger than K counts as K.

  Returns:
    [B] 0 or 1, in the type of the logits. A class that ties with the label
    counts as larger where its index is smaller.
  """
  label = jnp.maximum(labels, 0)[:, None]
  own = jnp.take_along_axis(logits, label, axis=-1)
  index = jnp.arange(logits.shape[-1])[None, :]
  before = (logits > own) | ((logits == own) & (index < label))
  return ((jnp.sum(before, axis=-1) < k) & (labels >= 0)).astype(logits.dtype)


def projection_std(projection: jax.Array) -> jax.Array:
  """How much unit projections vary: deviation over the batch, mean over D.

  Args:
    projection: [B, D].

  Returns:
    [] float: about 1/sqrt(D) when the directions spread evenly, 0 when all
    projections point one way (collapse).
  """
  return jnp.mean(jnp.std(losses.unit_length(projection), axis=0))


def effective_rank(projection: jax.Array) -> jax.Array:
  """Number of directions over which unit projections spread.

  It is (Σλ)² / Σλ² for the eigenvalues λ of their covariance. Two traces give
  both sums; to decompose the matrix in every step would cost a TPU too much.

  Args:
    projection: [B, D].

  Returns:
    [] float from 1 (a line) to min(B - 1, D); 0 when all are equal.
  """
  unit = losses.unit_length(projection)
  centred = unit - jnp.mean(unit, axis=0, keepdims=True)
  covariance = centred.T @ centred / projection.shape[0]  # [D, D]
  spread = jnp.trace(covariance)
  # A spread below this floor is nothing but the rounding of the mean.
  floor = (100 * jnp.finfo(unit.dtype).eps) ** 2
  rank = spread**2 / jnp.maximum(jnp.sum(covariance**2), floor**2)
  return jnp.where(spread > floor, rank, 0)
