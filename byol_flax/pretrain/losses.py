"""Losses on embeddings; every batch is one global array."""

import jax
import jax.numpy as jnp

# Floor of the squared norm in the authors' l2_normalize (utils/helpers.py).
_SQUARED_NORM_FLOOR = 1e-12


def unit_length(x: jax.Array) -> jax.Array:
  """Scales each vector of `x` [..., D] to length one; zero stays zero."""
  squared = jnp.sum(x**2, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(squared, _SQUARED_NORM_FLOOR))


def byol_loss(prediction: jax.Array, projection: jax.Array) -> jax.Array:
  """One direction of BYOL's loss, 2 - 2 cos (paper, eq. 2).

  Args:
    prediction: [..., D] of the online network for one view.
    projection: [..., D] of the target network for the other view. It receives
      no gradient.

  Returns:
    [...] squared distance of the unit vectors, from 0 (same direction) to 4
    (opposite), in the dtype of the inputs.

  Raises:
    ValueError: the two differ in shape.
  """
  if prediction.shape != projection.shape:
    raise ValueError(
      "byol_loss compares vectors of one size: prediction is "
      f"{prediction.shape}, projection is {projection.shape}. Do projector "
      "and predictor have the same output_size?"
    )
  target = jax.lax.stop_gradient(unit_length(projection))
  return jnp.sum((unit_length(prediction) - target) ** 2, axis=-1)


def symmetric_byol_loss(
  prediction: jax.Array, projection: jax.Array
) -> jax.Array:
  """BYOL's loss of both directions, summed (paper §3.1, not averaged).

  Args:
    prediction: [B, 2, D] of the online network for view1 and view2.
    projection: [B, 2, D] of the target network for view1 and view2.

  Returns:
    [B] loss of each example, from 0 to 8; about 4 for unrelated vectors.
  """
  crossed = projection[:, ::-1]  # view1 predicts view2's target and back
  return jnp.sum(byol_loss(prediction, crossed), axis=1)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Softmax cross-entropy in nats.

  Args:
    logits: [B, K] float.
    labels: [B] int; -1 (no label) gives 0.

  Returns:
    [B] float.
  """
  log_probability = jax.nn.log_softmax(logits)
  chosen = jnp.take_along_axis(
    log_probability, jnp.maximum(labels, 0)[:, None], axis=-1
  )[:, 0]
  return jnp.where(labels >= 0, -chosen, 0)
