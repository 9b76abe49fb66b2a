"""The optimal linear predictor, by regression on a batch (paper §5, App. I.2).

The predictor that serves best is the regression of targets on projections. To
compute it anew for each batch takes the place of a predictor that learns, and
then the target network can be left out: the target is the online network.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy import linalg


class Moments(NamedTuple):
  """Sums over a batch; those of micro-batches add up.

  Attributes:
    gram: ZᵀZ, [D, D].
    cross: ZᵀZ', [D, D].
  """

  gram: jax.Array
  cross: jax.Array


def moments(projection: jax.Array, target: jax.Array) -> Moments:
  """Sums for the regression of both directions at once.

  Args:
    projection: [B, 2, D] of the online network for view1 and view2.
    target: [B, 2, D], what is to be predicted from these views: projections of
      the other views.
  """

  def product(a: jax.Array, b: jax.Array) -> jax.Array:
    # In full float32: the inverse magnifies what TPUs would round away.
    return jnp.einsum("bvd,bve->de", a, b, precision="highest")

  return Moments(product(projection, projection), product(projection, target))


def optimal_predictor(sums: Moments, ridge: float) -> jax.Array:
  """The matrix Q* = (ZᵀZ + r I)⁻¹ ZᵀZ', [D, D]; predictions are z Q*.

  The paper states no ridge and no precision. Here r is `ridge` times the mean
  of the diagonal of ZᵀZ, so that it does not depend on how long projections
  are, and the system is solved by Cholesky in the dtype of the sums.

  Args:
    sums: over the whole batch.
    ridge: 0 for ordinary least squares.
  """
  size = len(sums.gram)
  added = ridge * jnp.trace(sums.gram) / size
  gram = sums.gram + added * jnp.eye(size, dtype=sums.gram.dtype)
  return linalg.cho_solve(linalg.cho_factor(gram), sums.cross)
