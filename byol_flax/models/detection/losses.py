"""Losses of both stages, as detectron2 takes them; all are [] and float32."""

import jax
import jax.numpy as jnp

from byol_flax.models.detection import matching


def of_proposals(
  logits: jax.Array, deltas: jax.Array, kind: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Losses of the drawn anchors of B images.

  Both are sums, divided by B and S alike, so that the few positives of an image
  do not get more weight if there are fewer of them.

  Args:
    logits: float [B, S].
    deltas: float [B, S, 4].
    kind: int [B, S], see `sampling.Sample`.
    targets: float [B, S, 4], of positives.

  Returns:
    Sigmoid cross-entropy of what holds an object, and L1 of the deltas.
  """
  positive = kind == matching.POSITIVE
  sign = jnp.where(positive, -1, 1).astype(logits.dtype)
  each = jax.nn.softplus(sign * logits)
  objectness = jnp.sum(jnp.where(kind == matching.NEITHER, 0, each))
  return objectness / kind.size, _distance(
    deltas, targets, positive
  ) / kind.size


def of_boxes(
  logits: jax.Array, deltas: jax.Array, label: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Losses of the drawn proposals of B images.

  Both are divided by the number of proposals that count in the whole batch.

  Args:
    logits: float [B, R, K + 1].
    deltas: float [B, R, K, 4].
    label: int [B, R], see `box_head.Targets`.
    targets: float [B, R, 4], of those with a class.

  Returns:
    Softmax cross-entropy of the classes, and L1 of the deltas of the true class
    of all that are not background.
  """
  classes = deltas.shape[-2]
  counts = label >= 0
  number = jnp.maximum(jnp.sum(counts), 1)
  own = jax.nn.one_hot(label, classes + 1, dtype=logits.dtype)  # 0 for -1
  entropy = -jnp.sum(own * jax.nn.log_softmax(logits)) / number
  deltas = jnp.sum(own[..., :classes, None] * deltas, axis=-2)
  inside = counts & (label < classes)
  return entropy, _distance(deltas, targets, inside) / number


def _distance(
  deltas: jax.Array, targets: jax.Array, counts: jax.Array
) -> jax.Array:
  """Sum of the absolute differences [..., 4] of all that `counts` [...]."""
  # What does not count is compared with itself, because its target need not be
  # finite.
  targets = jnp.where(counts[..., None], targets, deltas)
  return jnp.sum(jnp.abs(deltas - targets))
