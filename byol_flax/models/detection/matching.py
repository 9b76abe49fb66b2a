"""Which true box, if any, each anchor or proposal stands for."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

POSITIVE, NEGATIVE, NEITHER = 1, 0, -1


class Matches(NamedTuple):
  """Of N boxes.

  Attributes:
    truth: int32 [N], number of the true box with the largest overlap.
    kind: int32 [N], `POSITIVE`, `NEGATIVE` or `NEITHER`.
  """

  truth: jax.Array
  kind: jax.Array


def match(
  overlaps: jax.Array,
  *,
  true: jax.Array,
  counts: jax.Array,
  positive: float,
  negative: float,
  best_too: bool,
) -> Matches:
  """Matches N boxes with M true ones, M > 0, by thresholds.

  Args:
    overlaps: intersections over unions, float [M, N].
    true: which of the M are boxes and no padding, bool [M].
    counts: which of the N take part, bool [N]; the others are `NEITHER`.
    positive: overlap from which a box is positive.
    negative: overlap below which it is negative.
    best_too: whether the boxes that overlap a true box the most are positive
      too, however little that is ("low-quality matches"). In torchvision and
      detectron2 a true box that nothing overlaps makes every box positive that
      does not overlap it; here it makes none positive.
  """
  overlaps = jnp.where(true[:, None] & counts[None], overlaps, -1)
  # Below, an overlap is compared with the largest of its row. The barrier sees
  # to it that it is not computed twice, with another rounding.
  overlaps = jax.lax.optimization_barrier(overlaps)
  truth = jnp.argmax(overlaps, axis=0)
  most = jnp.max(overlaps, axis=0)
  kind = jnp.where(most >= positive, POSITIVE, NEITHER)
  kind = jnp.where(most < negative, NEGATIVE, kind)
  if best_too:
    best = jnp.max(overlaps, axis=1, keepdims=True)  # [M, 1]
    chosen = jnp.any((overlaps == best) & (best > 0), axis=0)
    kind = jnp.where(chosen, POSITIVE, kind)
  return Matches(
    truth=truth.astype(jnp.int32),
    kind=jnp.where(counts, kind, NEITHER).astype(jnp.int32),
  )
