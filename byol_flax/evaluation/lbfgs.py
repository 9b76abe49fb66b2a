"""L-BFGS for a loss that is a convex function of linear scores.

It minimises, over params [F + 1, K] (weights W, and biases b in the last row),

  L(x W + b) + penalty / 2 · ‖W‖²,

where L is summed over rows. It uses two facts that a general L-BFGS does not
know. Both save iterations, each of which reads all features twice.

- The columns of x are centred and orthogonal (see `logistic.Regression`), so
  the matrix of second derivatives is nearly diagonal: a[k] · Σ_i x[i, j]²
  + penalty, where a[k] is the mean of the second derivatives of L. Every
  iteration starts from the inverse of this diagonal, where others start from a
  multiple of the identity.
- Along a direction the scores change linearly. So a line search needs the
  scores of the direction once, and no features. It uses the slope alone: as the
  loss is convex, the sign of the slope tells on which side the minimum lies,
  and in float32 a slope is still exact where the difference of two losses is
  nothing but rounding.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

MEMORY = 10  # pairs of a step and the change of gradient, as in scikit-learn

_TRIALS = 30  # of one line search
_SLOPE_LEFT = 0.5  # share of the first slope at which a line search ends
_ROUNDING = 1e-6  # share of a loss by which it may seem to rise
_LEAST_GAIN = 1e-5  # share of a loss; smaller differences are mostly rounding
_TINY = 1e-30  # so that a curvature that float32 rounds to 0 can divide


# (scores [N, K], labels) -> a loss summed over rows, [], and its first and its
# second derivative by each score, [N, K]. Rows that do not count give 0.
Terms = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
# (labels, number of classes K) -> the least loss, [], of scores that are the
# same for all rows.
Constant = Callable[[jax.Array, int], jax.Array]


@dataclasses.dataclass(frozen=True)
class Loss:
  """A convex loss of scores.

  Attributes:
    terms: the loss and its derivatives.
    constant: what biases alone can reach.
    relative: whether only differences between the scores of a row matter. Then
      the best weights of a feature, and the biases, add up to 0 over the
      classes, and the search stays where they do.
  """

  terms: Terms
  constant: Constant
  relative: bool


class Problem(NamedTuple):
  """What is fitted.

  Attributes:
    features: x, [N, F].
    squares: [F + 1, 1], sums of the squares of its columns, and N, because the
      biases belong to a column of ones.
    labels: as the loss takes them.
  """

  features: jax.Array
  squares: jax.Array
  labels: jax.Array


class Solution(NamedTuple):
  """What was found; all but `params` are scalars.

  Attributes:
    params: [F + 1, K].
    objective: loss and penalty.
    excess: what is left to be gained, by a quadratic estimate: half the squared
      norm of the gradient g, where the norm is that of the diagonal D of second
      derivatives, gᵀ D⁻¹ g. It is a share of the objective, or of what the
      weights have gained over biases alone if that is less. With a strong
      penalty they gain little, yet it is they that tell classes apart.
    iterations: of L-BFGS; each reads the features twice.
    stalled: whether rounding ended the search before `excess` was small enough.
  """

  params: jax.Array
  objective: jax.Array
  excess: jax.Array
  iterations: jax.Array
  stalled: jax.Array


class _State(NamedTuple):
  params: jax.Array
  scores: jax.Array  # [N, K]
  objective: jax.Array
  gradient: jax.Array  # as params
  diagonal: jax.Array  # of second derivatives, as params
  steps: jax.Array  # [MEMORY, F + 1, K], a ring, as the next two
  changes: jax.Array  # of the gradient
  inverses: jax.Array  # [MEMORY], 1 / (step · change); 0 where there is none
  scale: jax.Array  # of the inverse of the diagonal
  iterations: jax.Array
  stalled: jax.Array


def minimise(
  problem: Problem,
  start: jax.Array,
  penalty: jax.Array,
  tolerance: jax.Array,
  most: jax.Array,
  *,
  loss: Loss,
) -> Solution:
  """Goes from `start` until the excess is at most `tolerance`.

  Args:
    problem: what is fitted.
    start: params [F + 1, K].
    penalty: above 0.
    tolerance: see `Solution.excess`.
    most: iterations.
    loss: of the scores.
  """
  # The biases are not penalised.
  penalties = jnp.full((len(start), 1), penalty, start.dtype).at[-1].set(0)

  def evaluate(params: jax.Array, scores: jax.Array) -> tuple[jax.Array, ...]:
    value, first, second = loss.terms(scores, problem.labels)
    weights = jnp.matmul(problem.features.T, first, precision="highest")
    gradient = jnp.concatenate([weights, jnp.sum(first, axis=0)[None]])
    curvature = jnp.sum(second, axis=0)[None] / problem.squares[-1:]
    return (
      value + jnp.sum(penalties * params**2) / 2,
      gradient + penalties * params,
      curvature * problem.squares + penalties + _TINY,
    )

  def iterate(state: _State) -> _State:
    direction = _direction(state, loss)
    change = linear(problem.features, direction)
    length = _search(state, direction, change, problem.labels, penalties, loss)
    step = length * direction
    params, scores = state.params + step, state.scores + length * change
    objective, gradient, diagonal = evaluate(params, scores)
    return _remember(
      loss,
      state._replace(
        params=params,
        scores=scores,
        objective=objective,
        diagonal=diagonal,
        stalled=length == 0,
      ),
      step,
      gradient,
    )

  def goes_on(state: _State) -> jax.Array:
    close = _excess(state, constant) <= tolerance
    return ~close & ~state.stalled & (state.iterations < most)

  constant = loss.constant(problem.labels, start.shape[1])
  scores = linear(problem.features, start)
  objective, gradient, diagonal = evaluate(start, scores)
  ring = jnp.zeros((MEMORY, *start.shape), start.dtype)
  first = _State(
    params=start,
    scores=scores,
    objective=objective,
    gradient=gradient,
    diagonal=diagonal,
    steps=ring,
    changes=ring,
    inverses=jnp.zeros(MEMORY, start.dtype),
    scale=jnp.ones((), start.dtype),
    iterations=jnp.zeros((), jnp.int32),
    stalled=jnp.zeros((), bool),
  )
  return _solution(jax.lax.while_loop(goes_on, iterate, first), constant)


def linear(features: jax.Array, params: jax.Array) -> jax.Array:
  """Scores [N, K] of features [N, F] by params [F + 1, K]."""
  weighted = jnp.matmul(features, params[:-1], precision="highest")
  return weighted + params[-1:]


def _solution(state: _State, constant: jax.Array) -> Solution:
  return Solution(
    params=state.params,
    objective=state.objective,
    excess=_excess(state, constant),
    iterations=state.iterations,
    stalled=state.stalled,
  )


def _excess(state: _State, constant: jax.Array) -> jax.Array:
  """See `Solution`; `constant` is what biases alone can reach."""
  left = jnp.sum(state.gradient**2 / state.diagonal) / 2
  gained = constant - state.objective
  least = _LEAST_GAIN * state.objective
  return left / jnp.clip(gained, least, state.objective)


def _divide(v: jax.Array, diagonal: jax.Array, loss: Loss) -> jax.Array:
  """Minimises ½ dᵀ D d - vᵀ d, over the d [F + 1, K] that the loss allows."""
  free = v / diagonal
  if not loss.relative:
    return free
  inverse = 1 / diagonal
  surplus = jnp.sum(free, axis=1, keepdims=True)
  return free - inverse * surplus / jnp.sum(inverse, axis=1, keepdims=True)


def _direction(state: _State, loss: Loss) -> jax.Array:
  """Where L-BFGS goes next: the two loops over what is remembered."""
  newest = state.iterations - 1

  def back(i: int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    left, shares = carry
    slot = (newest - i) % MEMORY
    share = state.inverses[slot] * jnp.vdot(state.steps[slot], left)
    return left - share * state.changes[slot], shares.at[slot].set(share)

  def forth(i: int, direction: jax.Array) -> jax.Array:
    slot = (newest + 1 + i) % MEMORY
    along = state.inverses[slot] * jnp.vdot(state.changes[slot], direction)
    return direction + (shares[slot] - along) * state.steps[slot]

  nothing = jnp.zeros_like(state.inverses)
  left, shares = jax.lax.fori_loop(0, MEMORY, back, (state.gradient, nothing))
  direction = state.scale * _divide(left, state.diagonal, loss)
  direction = jax.lax.fori_loop(0, MEMORY, forth, direction)
  # Rounding can turn it uphill; the diagonal alone never does.
  downhill = jnp.vdot(direction, state.gradient) > 0
  plain = _divide(state.gradient, state.diagonal, loss)
  return -jnp.where(downhill, direction, plain)


def _remember(
  loss: Loss, state: _State, step: jax.Array, gradient: jax.Array
) -> _State:
  """Puts a step, and how the gradient changed, in place of the oldest."""
  change = gradient - state.gradient
  slot = state.iterations % MEMORY
  curvature = jnp.vdot(step, change)
  divided = jnp.vdot(change, _divide(change, state.diagonal, loss))
  useful = (curvature > 0) & (divided > 0)

  return state._replace(
    gradient=gradient,
    steps=state.steps.at[slot].set(step),
    changes=state.changes.at[slot].set(change),
    inverses=state.inverses.at[slot].set(jnp.where(useful, 1 / curvature, 0)),
    scale=jnp.where(useful, curvature / divided, state.scale),
    iterations=state.iterations + 1,
  )


class _Bracket(NamedTuple):
  """The minimum lies between `low` and `high`, where the slopes are these."""

  trial: jax.Array
  low: jax.Array
  high: jax.Array
  low_slope: jax.Array
  high_slope: jax.Array
  trials: jax.Array
  found: jax.Array


def _search(
  state: _State,
  direction: jax.Array,
  change: jax.Array,
  labels: jax.Array,
  penalties: jax.Array,
  loss: Loss,
) -> jax.Array:
  """How far to go; 0 if rounding hides any way down."""
  # The penalty along the direction is a parabola.
  flat = jnp.sum(penalties * direction * state.params)
  bend = jnp.sum(penalties * direction**2)
  penalty = jnp.sum(penalties * state.params**2) / 2
  first_slope = jnp.vdot(state.gradient, direction)
  most = state.objective + _ROUNDING * jnp.abs(state.objective)

  def goes_on(bracket: _Bracket) -> jax.Array:
    return ~bracket.found & (bracket.trials < _TRIALS)

  def look(bracket: _Bracket) -> _Bracket:
    t, low, low_slope = bracket.trial, bracket.low, bracket.low_slope
    value, first, _ = loss.terms(state.scores + t * change, labels)
    objective = value + penalty + t * flat + t * t * bend / 2
    slope = jnp.vdot(first, change) + flat + t * bend
    risen = ~(objective <= most)  # or not a number
    beyond = risen | ~(slope <= 0)
    # Here the slope would be 0 if it were linear from `low` to `t` and beyond.
    straight = low - low_slope * (t - low) / (slope - low_slope)
    high = jnp.where(beyond, t, bracket.high)
    high_slope = jnp.where(beyond, slope, bracket.high_slope)
    low = jnp.where(beyond, low, t)
    low_slope = jnp.where(beyond, low_slope, slope)
    within = low - low_slope * (high - low) / (high_slope - low_slope)
    width = high - low
    usable = (within > low + 0.1 * width) & (within < high - 0.1 * width)
    between = jnp.where(usable, within, (low + high) / 2)
    further = jnp.where(
      straight > t, jnp.clip(straight, 1.5 * t, 10 * t), 4 * t
    )
    enough = ~risen & (jnp.abs(slope) <= _SLOPE_LEFT * jnp.abs(first_slope))
    return _Bracket(
      trial=jnp.where(enough, t, jnp.where(jnp.isinf(high), further, between)),
      low=low,
      high=high,
      low_slope=low_slope,
      high_slope=high_slope,
      trials=bracket.trials + 1,
      found=enough,
    )

  one = jnp.ones_like(first_slope)
  last = jax.lax.while_loop(
    goes_on,
    look,
    _Bracket(
      trial=one,
      low=0 * one,
      high=jnp.inf * one,
      low_slope=first_slope,
      high_slope=0 * one,
      trials=jnp.zeros((), jnp.int32),
      found=jnp.zeros((), bool),
    ),
  )
  return jnp.where(last.found, last.trial, last.low)
