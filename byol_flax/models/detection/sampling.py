"""Draws the few boxes of an image that a loss is taken of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from byol_flax.models.detection import matching, ranking


class Sample(NamedTuple):
  """S drawn boxes, positives first.

  Attributes:
    place: int32 [S], where each stands among the N.
    kind: int32 [S], as in `matching.Matches`; `NEITHER` marks what is left over
      because there were too few boxes. It repeats others, so that BatchNorm
      over all of them sees nothing else.
  """

  place: jax.Array
  kind: jax.Array


def sample(
  key: jax.Array, kind: jax.Array, *, number: int, positive_share: float
) -> Sample:
  """Draws boxes, each equally likely among those of its kind.

  At most their share of the sample are positives, and negatives are the rest.

  Args:
    key: a key of `jax.random`.
    kind: int [N], as in `matching.Matches`.
    number: S; N if there are fewer boxes than that.
    positive_share: in [0, 1].
  """
  number = min(number, len(kind))
  priority = jax.random.uniform(key, kind.shape)  # below 1
  of_positives = jnp.where(kind == matching.POSITIVE, 1 + priority, -1)
  most = min(int(number * positive_share), number)
  # Positives beyond their share have no priority any more.
  best, places = ranking.largest(of_positives, most)
  priority = jnp.where(kind == matching.NEGATIVE, priority, -1)
  priority = priority.at[places].max(best)
  best, place = ranking.largest(priority, number)
  drawn = jnp.where(best >= 1, matching.POSITIVE, matching.NEGATIVE)
  count = jnp.maximum(jnp.sum(best >= 0), 1)
  return Sample(
    place=place[jnp.arange(number) % count],
    kind=jnp.where(best >= 0, drawn, matching.NEITHER).astype(jnp.int32),
  )
