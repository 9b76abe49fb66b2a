"""How long a sweep of logistic regressions takes, beside scikit-learn's.

Command: python -m tests.logistic_benchmark [--rows=5000 --width=1024
  --classes=50] [--theirs=float64] [--gradient=G]
  [--only=sweep|growth|side_by_side]
Where other programs run, too, let both have one core and look at the CPU time:
  OPENBLAS_NUM_THREADS=1 taskset -c 0 python -m tests.logistic_benchmark
Two threads of scikit-learn that wait for each other can take 70 times as long.

sweep: 45 penalties from 1e5 to 1e-6, each begun where the one before ended, on
both sides. Scikit-learn stops where its gradient is as small as ours was at
that penalty (or --gradient, if that is less), or after 1,000 iterations. In
float32 (--theirs=float32) it ends many searches before that, because it goes by
differences of losses. Losses and gradients are computed in float64 for both.
At strong penalties all classes have nearly the same score, so that a small
distance from the minimum turns images. Hence both accuracies stand beside that
of the minimum itself: ours in float64, to a gradient that is shown.
growth: the CPU time of an iteration of ours, with N, F and K doubled in turn.
side_by_side: all penalties at once from zero weights, for the choice between
that and beginning where the one before ended.
"""

import argparse
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from byol_flax import sharding
from byol_flax.evaluation import lbfgs, logistic

PENALTIES = logistic.penalties(1e-6, 1e5, 45)


def examples(rows, width, classes, seed):
  """Features as of a network: not negative, with a few strong directions."""
  rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
  labels = rng.integers(0, classes, rows)
  strength = np.arange(1, width + 1) ** -0.7
  centres = 0.5 * fixed.normal(size=(classes, width)) * strength
  mix = 3 * fixed.normal(size=(width, width)) / np.sqrt(width)
  hidden = centres[labels] + rng.normal(size=(rows, width)) * strength
  return np.maximum(hidden @ mix + 0.1, 0).astype(np.float32), labels


def objective(x, labels, weights, biases, penalty):
  """The objective, and the largest gradient of its mean; in float64."""
  scores = x @ weights + biases
  scores -= scores.max(axis=1, keepdims=True)
  logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
  rows = np.arange(len(labels))
  value = -logs[rows, labels].sum() + penalty / 2 * (weights**2).sum()
  first = np.exp(logs)
  first[rows, labels] -= 1
  gradient = x.T @ first + penalty * weights
  largest = max(np.abs(gradient).max(), np.abs(first.sum(axis=0)).max())
  return value, largest / len(labels)


def told(seconds):
  return f"{seconds[0]:.1f} s ({seconds[1]:.1f} s of CPU)"


def accuracy(x, labels, weights, biases):
  return np.mean((x @ weights + biases).argmax(axis=1) == labels)


def times():
  """Now, and the CPU time so far of all threads: both in seconds."""
  return np.array([time.monotonic(), time.process_time()])


def ours(train, classes):
  """(seconds and CPU seconds, fits), once compiled."""
  regression = logistic.Regression(
    *train, num_classes=classes, mesh=sharding.make_mesh()
  )
  list(regression.path(PENALTIES[:1]))
  begun = times()
  regression = logistic.Regression(
    *train, num_classes=classes, mesh=sharding.make_mesh()
  )
  fits = list(regression.path(PENALTIES))
  return times() - begun, fits


def minima(train, classes):
  """Fits in float64 that are exact for all that is compared here."""
  with jax.enable_x64(True):
    regression = logistic.Regression(
      *train,
      num_classes=classes,
      mesh=sharding.make_mesh(),
      tolerance=1e-11,
      most=10_000,
    )
    return list(regression.path(PENALTIES))


def scikit_learns(train, slopes):
  """Yields (times, weights, biases, iterations) of each penalty."""
  model = LogisticRegression(warm_start=True, max_iter=1000)
  for penalty, slope in zip(PENALTIES, slopes, strict=True):
    model.set_params(C=1 / penalty, tol=slope)
    begun = times()
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", ConvergenceWarning)
      model.fit(*train)
    seconds = times() - begun
    weights, biases = model.coef_.T.astype(float), model.intercept_
    yield seconds, weights, biases.astype(float), int(model.n_iter_[0])


def sweep(shape, theirs, gradient):
  rows, width, classes = shape
  train = examples(rows, width, classes, seed=0)
  test = examples(10_000, width, classes, seed=1)
  wide = train[0].astype(float), train[1]
  seconds, fits = ours(train, classes)
  iterations = sum(fit.iterations for fit in fits)
  print(
    f"ours: {told(seconds)}, {iterations:,} iterations, "
    f"{sum(fit.stalled for fit in fits)} of {len(fits)} stalled",
    flush=True,
  )
  mine = [objective(*wide, f.weights, f.biases, f.penalty) for f in fits]
  least = minima(wide, classes)
  slopes = [objective(*wide, f.weights, f.biases, f.penalty)[1] for f in least]
  print(f"minima: largest gradients up to {max(slopes):.1e}", flush=True)
  given = train[0].astype(theirs), train[1]
  found = scikit_learns(given, [min(slope, gradient) for _, slope in mine])
  total, steps, losses, accuracies = np.zeros(2), 0, [], []
  print(
    "penalty; iterations, loss, largest gradient, accuracy: ours | theirs | "
    "accuracy of the minimum"
  )
  rows = zip(fits, mine, found, least, strict=True)
  for fit, (value, slope), other, minimum in rows:
    their_seconds, weights, biases, count = other
    total, steps = total + their_seconds, steps + count
    loss, other_slope = objective(*wide, weights, biases, fit.penalty)
    reached = "" if other_slope <= 2 * slope else " (not reached)"
    right = [
      accuracy(*test, fit.weights, fit.biases),
      accuracy(*test, weights, biases),
      accuracy(*test, minimum.weights, minimum.biases),
    ]
    losses.append(value / loss - 1)
    accuracies.append([right[0] - right[1], right[0] - right[2]])
    print(
      f"{fit.penalty:9.2e}; {fit.iterations:4d} {value:.6e} {slope:.1e} "
      f"{right[0]:.4f} | {count:4d} "
      f"{loss:.6e} {other_slope:.1e} {right[1]:.4f} | {right[2]:.4f}; "
      f"ours - theirs {losses[-1]:+.1e}{reached}",
      flush=True,
    )
  largest = np.abs(accuracies).max(axis=0)
  print(
    f"scikit-learn: {told(total)}, {steps:,} iterations; ours takes "
    f"1/{total[0] / seconds[0]:.1f} of the time and "
    f"1/{total[1] / seconds[1]:.1f} of the CPU time; losses differ by "
    f"{min(losses):+.1e} to {max(losses):+.1e}, accuracies by at most "
    f"{largest[0]:.4f}, and ours from the minima's by {largest[1]:.4f}"
  )


def growth(shape):
  print("rows, width, classes: iterations of a sweep, time, CPU ms each")
  for factors in ((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 2)):
    rows, width, classes = (
      size * factor for size, factor in zip(shape, factors, strict=True)
    )
    train = examples(rows, width, classes, seed=0)
    seconds, fits = ours(train, classes)
    iterations = sum(fit.iterations for fit in fits)
    print(
      f"{rows:6d} {width:5d} {classes:4d}: {iterations:5d} {told(seconds)}, "
      f"{1e3 * seconds[1] / iterations:6.1f} ms",
      flush=True,
    )


def side_by_side(shape):
  rows, width, classes = shape
  train = examples(rows, width, classes, seed=0)
  seconds, fits = ours(train, classes)
  regression = logistic.Regression(
    *train, num_classes=classes, mesh=sharding.make_mesh()
  )

  @jax.jit
  def solve(problem, start, penalties):
    def one(penalty):
      return lbfgs.minimise(
        problem, start, penalty, 1e-6, 1000, loss=logistic.MULTINOMIAL
      )

    return jax.vmap(one)(penalties)

  arguments = regression._problem, regression._zero, jnp.array(PENALTIES)
  compiled = solve.lower(*arguments).compile()
  begun = times()
  found = jax.block_until_ready(compiled(*arguments))
  together = times() - begun
  print(
    f"one after another: {told(seconds)}, "
    f"{sum(fit.iterations for fit in fits):,} iterations; side by side: "
    f"{told(together)}, {int(found.iterations.sum()):,} iterations, at most "
    f"{int(found.iterations.max())} of one penalty"
  )


OTHERS = {"growth": growth, "side_by_side": side_by_side}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rows", type=int, default=5000)
  parser.add_argument("--width", type=int, default=1024)
  parser.add_argument("--classes", type=int, default=50)
  parser.add_argument(
    "--theirs", choices=("float32", "float64"), default="float64"
  )
  parser.add_argument("--gradient", type=float, default=float("inf"))
  parser.add_argument("--only", choices=("sweep", *OTHERS), default="sweep")
  options = parser.parse_args()
  shape = (options.rows, options.width, options.classes)
  if options.only == "sweep":
    sweep(shape, options.theirs, options.gradient)
  else:
    OTHERS[options.only](shape)


if __name__ == "__main__":
  main()
