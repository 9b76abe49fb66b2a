"""What a step reports: accuracies and signals of collapse."""

import einops
import jax
import jax.numpy as jnp

from byol_flax.pretrain import losses


def labelled_mean(
  values: jax.Array, labels: jax.Array, count: jax.Array | None = None
) -> jax.Array:
  """Mean of `values` over what has a label; 0 where nothing has.

  Values and labels are [B], or [B, K] where an example has a label for each of
  K classes; -1 is none. The sum is divided by `count`, if it is given, in place
  of the number of labels.
  """
  labelled = labels >= 0
  total = jnp.sum(jnp.where(labelled, values, 0))
  if count is None:
    count = jnp.maximum(jnp.sum(labelled), 1)
  return total / count


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


def signals_of_collapse(
  prediction: jax.Array, projection: jax.Array, target: jax.Array
) -> dict[str, jax.Array]:
  """What `watchdog` looks at and a person should, by name; each [] float.

  Args:
    prediction: [B, 2, D] of the online network for view1 and view2.
    projection: [B, 2, D] of the online network.
    target: [B, 2, D], projections that are predicted.
  """
  view1 = projection[:, 0]
  return {
    "train/projection_std": projection_std(view1),
    "train/effective_rank": effective_rank(view1),
    "train/alignment": alignment(projection),
    "train/uniformity": uniformity(projection),
    "train/predictor_gain": predictor_gain(prediction, projection, target),
  }


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


def alignment(projection: jax.Array) -> jax.Array:
  """How far apart the unit projections of two views of one image are.

  Args:
    projection: [B, 2, D] of view1 and view2.

  Returns:
    [] float, mean squared distance (arXiv 2005.10242 §4.1): 0 when both views
    agree on every image, about 2 when they have nothing to do with each other.
  """
  unit = losses.unit_length(projection)
  return jnp.mean(jnp.sum((unit[:, 0] - unit[:, 1]) ** 2, axis=-1))


def uniformity(projection: jax.Array) -> jax.Array:
  """How evenly unit projections of different images cover the sphere.

  Each image is compared with its neighbour in the batch alone. The neighbour
  lies on the same device if every device has an even number of rows, so no row
  has to travel; and the order of images is random, so neighbours are a fair
  sample of all pairs.

  Args:
    projection: [B, 2, D] of view1 and view2. All four pairs of views of two
      neighbours count. An odd last row has no neighbour and does not count.

  Returns:
    [] float, log of the mean of exp(-2 d²) over pairs at distance d (arXiv
    2005.10242 §4.1): about -4 when the directions spread evenly over many
    dimensions, 0 when all projections point one way.
  """
  unit = losses.unit_length(projection)
  pairs = einops.rearrange(
    unit[: len(unit) // 2 * 2], "(n two) v d -> two n v d", two=2
  )
  apart = pairs[0][:, :, None] - pairs[1][:, None, :]  # [B/2, 2, 2, D]
  return jnp.log(jnp.mean(jnp.exp(-2 * jnp.sum(apart**2, axis=-1))))


def predictor_gain(
  prediction: jax.Array, projection: jax.Array, target: jax.Array
) -> jax.Array:
  """How much of BYOL's loss the predictor saves over predicting z itself.

  Args:
    prediction: [B, 2, D] of the online network.
    projection: [B, 2, D] of the online network, z.
    target: [B, 2, D], projections of the target network.

  Returns:
    [] float: the loss with z as the prediction, less the loss of `prediction`;
    0 when the predictor is the identity.
  """
  identity = losses.symmetric_byol_loss(projection, target)
  predicted = losses.symmetric_byol_loss(prediction, target)
  return jnp.mean(identity - predicted)
