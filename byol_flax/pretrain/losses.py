"""Losses on embeddings; every batch is one global array."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

# Floor of the squared norm in the authors' l2_normalize (utils/helpers.py).
_SQUARED_NORM_FLOOR = 1e-12


def unit_length(x: jax.Array) -> jax.Array:
  """Scales each vector of `x` [..., D] to length one; zero stays zero."""
  squared = jnp.sum(x**2, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(squared, _SQUARED_NORM_FLOOR))


def layer_norm(x: jax.Array) -> jax.Array:
  """Each vector of `x` [..., D] with mean 0 and length one (App. F.6)."""
  centred = x - jnp.mean(x, axis=-1, keepdims=True)
  return unit_length(centred)


def batch_norm(x: jax.Array) -> jax.Array:
  """Each feature of `x` [B, V, D] standardised over the batch (App. F.6).

  Its mean becomes 0, and its deviation 1/sqrt(D), so that a vector has length
  one on average. Each view has statistics of its own.
  """
  centred = x - jnp.mean(x, axis=0, keepdims=True)
  variance = jnp.mean(centred**2, axis=0, keepdims=True)
  scale = jax.lax.rsqrt(
    jnp.maximum(variance * x.shape[-1], _SQUARED_NORM_FLOOR)
  )
  return centred * scale


Normalize = Callable[[jax.Array], jax.Array]

# What makes predictions and targets comparable, [B, V, D] to [B, V, D]: BYOL's
# own, and those of Table 20 (App. F.6).
NORMALIZATIONS: Mapping[str, Normalize] = {
  "l2": unit_length,
  "layer_norm": layer_norm,
  "batch_norm": batch_norm,
  "none": lambda x: x,
}


def byol_loss(
  prediction: jax.Array,
  projection: jax.Array,
  normalize: Normalize = unit_length,
) -> jax.Array:
  """One direction of BYOL's loss, 2 - 2 cos (paper, eq. 2).

  Both arguments receive a gradient; whoever calls this stops the one of the
  target where it must not flow.

  Args:
    prediction: [..., D] of the online network for one view.
    projection: [..., D] of the target network for the other view.
    normalize: one of `NORMALIZATIONS`.

  Returns:
    [...] squared distance of the normalised vectors, in the dtype of the
    inputs. Unit vectors are from 0 (same direction) to 4 (opposite) apart.

  Raises:
    ValueError: the two differ in shape.
  """
  if prediction.shape != projection.shape:
    raise ValueError(
      "byol_loss compares vectors of one size: prediction is "
      f"{prediction.shape}, projection is {projection.shape}. Do projector "
      "and predictor have the same output_size?"
    )
  return jnp.sum((normalize(prediction) - normalize(projection)) ** 2, axis=-1)


def symmetric_byol_loss(
  prediction: jax.Array,
  projection: jax.Array,
  normalize: Normalize = unit_length,
) -> jax.Array:
  """BYOL's loss of both directions, summed (paper §3.1, not averaged).

  Args:
    prediction: [B, 2, D] of the online network for view1 and view2.
    projection: [B, 2, D] of the target network for view1 and view2.
    normalize: one of `NORMALIZATIONS`.

  Returns:
    [B] loss of each example; of unit vectors from 0 to 8, and about 4 for
    unrelated ones.
  """
  crossed = projection[:, ::-1]  # view1 predicts view2's target and back
  return jnp.sum(byol_loss(prediction, crossed, normalize), axis=1)


def repulsion(
  prediction: jax.Array, projection: jax.Array, temperature: float
) -> jax.Array:
  """What InfoNCE adds to BYOL's loss: it pushes all other images away (§5).

  A view is compared with both views of every image but with itself, 2B - 1 in
  all. Its own other view is among them, as App. F.4 writes it:

    2α ln( Σ_{j≠i} exp(S(v_i, v_j) / α) + Σ_j exp(S(v_i, v'_j) / α) )

  With weight 1 and BYOL's loss it is 2α times SimCLR's loss, plus a constant.
  The values [B, 2, B, 2] are cut among the devices by their first axis, so a
  device holds those of its own images only.

  Args:
    prediction: [B, 2, D], compared with
    projection: [B, 2, D]; S is the cosine of the two.
    temperature: α.

  Returns:
    [B] of each example, both directions summed.
  """
  logits = jnp.einsum(
    "bvd,cwd->bvcw",
    unit_length(prediction),
    unit_length(projection),
    precision="highest",  # TPUs would round the cosines to three digits
  )
  batch, views = prediction.shape[:2]
  itself = jnp.einsum(
    "bc,vw->bvcw", jnp.eye(batch, dtype=bool), jnp.eye(views, dtype=bool)
  )
  logits = jnp.where(itself, -jnp.inf, logits / temperature)
  total = jax.nn.logsumexp(logits, axis=(2, 3))
  return 2 * temperature * jnp.sum(total, axis=1)


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
