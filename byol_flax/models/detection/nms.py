"""Non-maximum suppression: of boxes that overlap, the best one is kept."""

import jax
import jax.numpy as jnp

from byol_flax.models.detection import boxes as boxes_lib


def suppress(
  boxes: jax.Array,
  scores: jax.Array,
  *,
  threshold: float,
  number: int,
  label: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Keeps the best box again and again, and drops all that overlap it.

  There is one pass over the boxes for each that is kept, so time grows with
  `number` times N and memory with N only. A matrix of all overlaps would take
  576 MB for 12,000 boxes of one image. The number of passes is fixed, because
  a loop that ends by its data would have all devices agree on its end in every
  pass.

  Args:
    boxes: float [N, 4], in any order, at any place.
    scores: float [N]; -inf where there is no box. Of equal scores the first
      counts as the best.
    threshold: overlap above which a box is dropped, in [0, 1].
    number: how many to keep at most, D.
    label: int [N]; if given, boxes drop only those with their own label.

  Returns:
    Numbers of the boxes that are kept, the best first, int32 [D], and whether
    there were so many, bool [D].
  """
  own = jnp.arange(len(boxes))

  def keep(
    left: jax.Array, _: None
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    best = jnp.argmax(left)
    drops = boxes_lib.overlaps(boxes[best][None], boxes) > threshold
    if label is not None:
      drops &= label == label[best]
    # A box without area does not even overlap itself.
    drops |= own == best
    found = left[best] > -jnp.inf
    return jnp.where(drops, -jnp.inf, left), (best.astype(jnp.int32), found)

  _, kept = jax.lax.scan(keep, scores, length=number)
  return kept
