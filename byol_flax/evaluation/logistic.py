"""Logistic regression with an l2 penalty, fitted by L-BFGS on the devices.

It minimises the cross-entropy summed over examples + penalty / 2 · ‖W‖²; biases
are not penalised. That is scikit-learn's objective with C = 1 / penalty.
Features are not standardised (paper, App. D.2). Their rows are cut among the
devices; weights are whole on each.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import lbfgs

MOST_ITERATIONS = 1000
# A fit ends when no more than this share is left to be gained; of what, tells
# `lbfgs.Solution.excess`.
TOLERANCE = 1e-6


def multinomial_terms(
  scores: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Cross-entropy of the softmax; labels int [N], of which -1 do not count.

  See `lbfgs.Terms`. With a weak penalty the true class has nearly all of the
  softmax. What it lacks is added up from the other classes, because float32
  would round 1 - share to 0.
  """
  true = jax.nn.one_hot(labels, scores.shape[1], dtype=scores.dtype)
  highest = jnp.max(scores, axis=1, keepdims=True)
  powers = jnp.exp(scores - highest)
  others = jnp.sum((1 - true) * powers, axis=1, keepdims=True)
  total = jnp.sum(powers, axis=1, keepdims=True)
  score = jnp.sum(true * scores, axis=1, keepdims=True)
  entropy = jnp.where(
    score == highest, jnp.log1p(others), jnp.log(total) - (score - highest)
  )
  lacking = others / total
  share = powers / total
  first = jnp.where(true == 1, -lacking, share)
  second = share * jnp.where(true == 1, lacking, 1 - share)
  counted = (labels >= 0)[:, None]
  return (
    jnp.sum(jnp.where(counted, entropy, 0)),
    jnp.where(counted, first, 0),
    jnp.where(counted, second, 0),
  )


def binary_terms(
  scores: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Cross-entropy of a sigmoid for each class by itself, added up.

  Labels are int [N, K]: 1 if an example has the class, 0 if not, and -1 if it
  does not count. See `lbfgs.Terms`.
  """
  counted = labels >= 0
  sign = jnp.where(labels > 0, 1, -1).astype(scores.dtype)
  lacking = jax.nn.sigmoid(-sign * scores)
  second = lacking * jax.nn.sigmoid(sign * scores)
  return (
    jnp.sum(jnp.where(counted, jax.nn.softplus(-sign * scores), 0)),
    jnp.where(counted, -sign * lacking, 0),
    jnp.where(counted, second, 0),
  )


def multinomial_constant(labels: jax.Array, num_classes: int) -> jax.Array:
  """The least cross-entropy, [], of K scores that all rows share.

  Labels are those of `multinomial_terms`.
  """
  return _entropy(jnp.bincount(labels + 1, length=num_classes + 1)[1:])


def binary_constant(labels: jax.Array, num_classes: int) -> jax.Array:
  """The same of `binary_terms`, added up over the classes."""
  del num_classes
  return _entropy(
    jnp.stack([jnp.sum(labels == 0, axis=0), jnp.sum(labels == 1, axis=0)])
  )


def _entropy(counts: jax.Array) -> jax.Array:
  """-Σ n log(n / Σ n) of counts n [C, ...], with the sum within along C."""
  total = jnp.maximum(jnp.sum(counts, axis=0, keepdims=True), 1)
  return -jnp.sum(jax.scipy.special.xlogy(counts, counts / total))


MULTINOMIAL = lbfgs.Loss(multinomial_terms, multinomial_constant, relative=True)
BINARY = lbfgs.Loss(binary_terms, binary_constant, relative=False)


class Fit(NamedTuple):
  """One regression, and how it was found.

  Attributes:
    penalty: with which it was fitted.
    weights: float [F, K].
    biases: float [K].
    objective: at the end.
    excess: see `lbfgs.Solution`.
    iterations: of L-BFGS.
    stalled: see `lbfgs.Solution`.
  """

  penalty: float
  weights: np.ndarray
  biases: np.ndarray
  objective: float
  excess: float
  iterations: int
  stalled: bool


class Regression:
  """All regressions of one set of features, on the devices.

  The features are centred, and turned so that their columns are orthogonal.
  That leaves the minimum as it is: a rotation keeps ‖W‖, and the biases, which
  cost nothing, take up the mean. But L-BFGS then needs a third of the
  iterations or fewer (see `lbfgs`).
  """

  def __init__(
    self,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    mesh: Mesh,
    tolerance: float = TOLERANCE,
    most: int = MOST_ITERATIONS,
  ) -> None:
    """Takes features [N, F], whole on every process, and their labels.

    Labels are int [N] for `MULTINOMIAL`, and int [N, K] for `BINARY`.
    """
    loss = MULTINOMIAL if labels.ndim == 1 else BINARY
    self._mesh = mesh
    self._solve = solver(mesh, loss)
    self._until = _scalar(tolerance), np.int32(most)
    counted = labels >= 0 if labels.ndim == 1 else np.any(labels >= 0, axis=1)
    kept = labels[counted].astype(np.int32)
    x, y = put_rows(mesh, features[counted], 0), put_rows(mesh, kept, -1)
    rank = min(len(kept), x.shape[1])
    x, squares, self._mean, self._basis = _rotator(mesh, rank)(x, len(kept))
    self._problem = lbfgs.Problem(x, squares, y)
    self._zero = sharding.put_everywhere(
      mesh, np.zeros((rank + 1, num_classes), x.dtype)
    )

  def path(self, penalties: Sequence[float]) -> Iterator[Fit]:
    """Yields the fit for each penalty, begun where the one before ended.

    The strongest should come first, because its fit is near to zero weights.
    """
    params = self._zero
    for penalty in penalties:
      found = self._solve(self._problem, params, _scalar(penalty), *self._until)
      params = found.params
      yield self._fit(penalty, found)

  def _fit(self, penalty: float, found: lbfgs.Solution) -> Fit:
    """The solution in the features' own coordinates."""
    weights, biases = jax.device_get(
      _turn_back(self._mesh)(found.params, self._mean, self._basis)
    )
    _, objective, excess, iterations, stalled = jax.device_get(found)
    return Fit(
      penalty=penalty,
      weights=weights,
      biases=biases,
      objective=float(objective),
      excess=float(excess),
      iterations=int(iterations),
      stalled=bool(stalled),
    )


def put_rows(mesh: Mesh, rows: np.ndarray, filling: int) -> jax.Array:
  """Cuts rows [N, ...], whole on every process, among the devices.

  Rows of `filling` are added until the devices can share them. Floats get the
  type that JAX computes in, float32 or (with JAX_ENABLE_X64) float64.
  """
  missing = -len(rows) % mesh.size
  sharding_ = sharding.split(mesh)
  if np.issubdtype(rows.dtype, np.floating):
    rows = rows.astype(jax.dtypes.canonicalize_dtype(float))
  empty = np.full((missing, *rows.shape[1:]), filling, rows.dtype)
  whole = np.concatenate([rows, empty])
  return jax.make_array_from_callback(
    whole.shape, sharding_, lambda index: whole[index]
  )


def penalties(least: float, most: float, count: int) -> list[float]:
  """Penalties evenly spaced in their logarithms, the strongest first."""
  return [float(x) for x in np.geomspace(most, least, count)]


def _scalar(x: float) -> np.ndarray:
  return np.asarray(x, jax.dtypes.canonicalize_dtype(float))


@functools.cache
def solver(mesh: Mesh, loss: lbfgs.Loss) -> Callable[..., lbfgs.Solution]:
  """`lbfgs.minimise`, compiled once for all penalties."""
  return jax.jit(
    functools.partial(lbfgs.minimise, loss=loss),
    out_shardings=sharding.replicated(mesh),
  )


@functools.cache
def _rotator(mesh: Mesh, rank: int) -> Callable[..., tuple[jax.Array, ...]]:
  """(features, count) -> rotated features, squares, mean, basis.

  Only the first `count` rows of the features [N, F] count, and these span no
  more than `rank` directions. The basis is [F, rank].
  """

  def rotate(features: jax.Array, count: int) -> tuple[jax.Array, ...]:
    counted = (jnp.arange(len(features)) < count)[:, None]
    mean = jnp.sum(jnp.where(counted, features, 0), axis=0) / count
    centred = jnp.where(counted, features - mean[None], 0)
    products = jnp.matmul(centred.T, centred, precision="highest")
    _, vectors = jnp.linalg.eigh(products)  # of ascending eigenvalues
    basis = vectors[:, -rank:]
    turned = jnp.matmul(centred, basis, precision="highest")
    ones = jnp.asarray([count], features.dtype)
    squares = jnp.concatenate([jnp.sum(turned**2, axis=0), ones])
    return turned, squares[:, None], mean, basis

  whole = sharding.replicated(mesh)
  return jax.jit(
    rotate,
    donate_argnums=0,
    out_shardings=(sharding.split(mesh), whole, whole, whole),
  )


@functools.cache
def _turn_back(mesh: Mesh) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """(params, mean, basis) -> weights [F, K] and biases [K] without rotation."""

  def turn_back(
    params: jax.Array, mean: jax.Array, basis: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    weights = jnp.matmul(basis, params[:-1], precision="highest")
    shift = jnp.matmul(mean, weights, precision="highest")
    return weights, params[-1] - shift

  return jax.jit(turn_back, out_shardings=sharding.replicated(mesh))


@functools.cache
def _scorer(mesh: Mesh) -> Callable[..., jax.Array]:
  def score(
    features: jax.Array, weights: jax.Array, biases: jax.Array
  ) -> jax.Array:
    return jnp.matmul(features, weights, precision="highest") + biases[None]

  return jax.jit(score, out_shardings=sharding.replicated(mesh))


@dataclasses.dataclass(frozen=True)
class Scorer:
  """Scores of one split by many fits; the features stay on the devices."""

  mesh: Mesh
  features: jax.Array
  count: int

  @classmethod
  def of(cls, features: np.ndarray, mesh: Mesh) -> "Scorer":
    """Takes features [N, F], whole on every process."""
    return cls(mesh, put_rows(mesh, features, 0), len(features))

  def __call__(self, fit: Fit) -> np.ndarray:
    """Float [N, K], on every process."""
    found = _scorer(self.mesh)(self.features, fit.weights, fit.biases)
    return np.asarray(found)[: self.count]
