"""Logistic regression beside scikit-learn's, on any devices."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from byol_flax import sharding
from byol_flax.evaluation import logistic


def mesh_of(devices):
  return sharding.make_mesh(jax.devices()[:devices])


def blobs(rows, width, classes, seed):
  """Features as of a network: not negative, with a few strong directions."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, classes, rows)
  fixed = np.random.default_rng(99)
  centres = fixed.normal(size=(classes, width))
  mix = fixed.normal(size=(width, width)) * np.arange(1, width + 1) ** -0.7
  mixed = (0.5 * centres[labels] + rng.normal(size=(rows, width))) @ mix.T
  return np.maximum(mixed + 0.3, 0).astype(np.float32), labels


def oracle(features, labels, weights, biases, penalty):
  """Objective, and the largest gradient of the mean loss; in float64."""
  scores = features.astype(float) @ weights.astype(float) + biases
  scores -= scores.max(axis=1, keepdims=True)
  logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
  true = np.eye(weights.shape[1])[labels]
  first = np.exp(logs) - true
  gradient = features.T.astype(float) @ first + penalty * weights
  largest = max(np.abs(gradient).max(), np.abs(first.sum(axis=0)).max())
  objective = -(true * logs).sum() + penalty / 2 * (weights**2).sum()
  return objective, largest / len(labels)


def scikit_learns(features, labels, penalty, most=20_000, tolerance=1e-7):
  model = LogisticRegression(C=1 / penalty, tol=tolerance, max_iter=most)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)
    model.fit(features.astype(float), labels)
  return model.coef_.T, model.intercept_, model


def random_scores():
  rng = np.random.default_rng(1)
  return jnp.asarray(rng.normal(size=(7, 4)) * 20), rng


@pytest.mark.slow
@pytest.mark.parametrize("loss", [logistic.MULTINOMIAL, logistic.BINARY])
def test_derivatives_are_jax_s_own_of_the_plain_loss(loss):
  with jax.enable_x64(True):
    scores, rng = random_scores()
    if loss is logistic.BINARY:
      labels = rng.choice([-1, 0, 1], (7, 4))

      def plain(scores):
        share = jax.nn.log_sigmoid(scores)
        other = jax.nn.log_sigmoid(-scores)
        return -jnp.sum(
          jnp.where(labels == 1, share, 0) + jnp.where(labels == 0, other, 0)
        )
    else:
      labels = np.array([0, 3, -1, 1, 2, 2, -1])
      rows = np.flatnonzero(labels >= 0)

      def plain(scores):
        return -jnp.sum(jax.nn.log_softmax(scores)[rows, labels[rows]])

    value, first, second = loss.terms(scores, jnp.asarray(labels))
    assert value == pytest.approx(float(plain(scores)))
    np.testing.assert_allclose(first, jax.grad(plain)(scores), atol=1e-12)
    full = jax.hessian(plain)(scores).reshape(28, 28)
    np.testing.assert_allclose(
      second.ravel(), jnp.diag(full), rtol=1e-6, atol=1e-12
    )


@pytest.mark.slow
def test_what_the_true_class_lacks_is_not_rounded_away():
  scores = jnp.asarray([[30.0, 0.0, 1.0]], jnp.float32)
  value, first, _ = logistic.multinomial_terms(scores, jnp.asarray([0]))
  lacking = np.exp(-30.0) + np.exp(-29.0)
  np.testing.assert_allclose(value, lacking, rtol=1e-5)
  np.testing.assert_allclose(first[0, 0], -lacking, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(301, 20, 5), (60, 90, 3)])
def test_fits_are_scikit_learns(shape):
  """The second has fewer rows than features."""
  x, labels = blobs(*shape, seed=0)
  test, test_labels = blobs(4000, *shape[1:], seed=1)
  sweep = (1e3, 10.0, 0.1, 1e-3)
  regression = logistic.Regression(
    x, labels, num_classes=shape[2], mesh=mesh_of(1), tolerance=1e-8
  )
  score = logistic.Scorer.of(test, mesh_of(1))
  for fit in regression.path(sweep):
    weights, biases, model = scikit_learns(x, labels, fit.penalty)
    theirs, their_slope = oracle(x, labels, weights, biases, fit.penalty)
    ours, our_slope = oracle(x, labels, fit.weights, fit.biases, fit.penalty)
    assert max(our_slope, their_slope) < 1e-4  # the stated gradient norm
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert fit.objective == pytest.approx(ours, rel=1e-5)
    found = np.mean(score(fit).argmax(axis=1) == test_labels)
    assert abs(found - model.score(test, test_labels)) <= 0.001
    assert fit.iterations < model.n_iter_[0]


@pytest.mark.slow
def test_strong_penalties_leave_the_guesses_of_an_exact_minimum():
  """All scores of an image are nearly equal there, and the weights small."""
  x, labels = blobs(1000, 60, 20, seed=0)
  test, _ = blobs(4000, 60, 20, seed=1)
  sweep = np.geomspace(1e5, 1e2, 7)

  def guesses(**how):
    regression = logistic.Regression(
      x, labels, num_classes=20, mesh=mesh_of(1), **how
    )
    return [
      (test.astype(float) @ fit.weights + fit.biases).argmax(axis=1)
      for fit in regression.path(sweep)
    ]

  ours = guesses()
  exact = guesses(tolerance=1e-9)
  turned = [np.mean(a != b) for a, b in zip(ours, exact, strict=True)]
  assert len(np.unique(exact[-1])) == 20
  assert max(turned) <= 0.003


@pytest.mark.slow
@pytest.mark.parametrize("loss", [logistic.MULTINOMIAL, logistic.BINARY])
def test_biases_alone_reach_the_loss_of_the_frequencies(loss):
  rng = np.random.default_rng(0)
  shape = (50, 4) if loss is logistic.BINARY else (50,)
  labels = rng.choice([-1, 0, 0, 1], shape)
  if loss is logistic.BINARY:
    counts = [np.sum(labels == 1, axis=0), np.sum(labels == 0, axis=0)]
    best = np.log(counts[0] / counts[1])
  else:  # the other two classes never come
    best = np.log([max(np.sum(labels == k), 1e-9) for k in range(4)])
  scores = jnp.asarray(np.tile(best, (50, 1)))
  value, _, _ = loss.terms(scores, jnp.asarray(labels))
  constant = loss.constant(jnp.asarray(labels), 4)
  assert constant == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("most", [3, 10, 30, 100])
@pytest.mark.parametrize("penalty", [1e-6, 1e-3])
def test_never_worse_than_scikit_learn_at_equal_iterations(most, penalty):
  x, labels = blobs(301, 20, 5, seed=0)
  regression = logistic.Regression(
    x, labels, num_classes=5, mesh=mesh_of(1), tolerance=1e-9, most=most
  )
  (fit,) = regression.path([penalty])
  assert fit.iterations <= most
  weights, biases, _ = scikit_learns(x, labels, penalty, most, tolerance=1e-12)
  ours, _ = oracle(x, labels, fit.weights, fit.biases, penalty)
  theirs, _ = oracle(x, labels, weights, biases, penalty)
  assert ours <= theirs * (1 + 1e-6)


@pytest.mark.slow
def test_binary_problems_side_by_side_are_single_ones():
  """Each class has other rows that do not count; one row counts for none."""
  x, _ = blobs(200, 12, 3, seed=2)
  rng = np.random.default_rng(3)
  labels = rng.choice([-1, 0, 1], (200, 3), p=[0.2, 0.5, 0.3])
  labels[7] = -1
  regression = logistic.Regression(
    x, labels, num_classes=3, mesh=mesh_of(8), tolerance=1e-8
  )
  (fit,) = regression.path([0.3])
  for k in range(3):
    counted = labels[:, k] >= 0
    weights, biases, _ = scikit_learns(x[counted], labels[counted, k], 0.3)
    np.testing.assert_allclose(fit.weights[:, k], weights[:, 0], atol=2e-3)
    np.testing.assert_allclose(fit.biases[k], biases[0], atol=2e-3)


@pytest.mark.slow
def test_one_device_equals_eight():
  """Eight can share 299 rows only after some that do not count are added."""
  x, labels = blobs(299, 20, 5, seed=4)
  labels[5] = -1
  found = []
  with jax.enable_x64(True):
    for devices in (1, 8):
      regression = logistic.Regression(
        x, labels, num_classes=5, mesh=mesh_of(devices), tolerance=1e-12
      )
      found.append(list(regression.path([10.0, 1e-2])))
  for one, eight in zip(*found, strict=True):
    assert one.weights.dtype == np.float64
    np.testing.assert_allclose(one.weights, eight.weights, atol=1e-5)
    assert one.objective == pytest.approx(eight.objective, rel=1e-10)


@pytest.mark.slow
def test_penalties_are_the_papers_and_share_one_program():
  sweep = logistic.penalties(1e-6, 1e5, 45)
  assert sweep[0] == 1e5
  assert sweep[-1] == pytest.approx(1e-6)
  assert sweep[1] / sweep[0] == pytest.approx(10**-0.25)
  x, labels = blobs(50, 6, 3, seed=5)
  solve = logistic.solver(mesh_of(2), logistic.MULTINOMIAL)
  before = solve._cache_size()
  regression = logistic.Regression(
    x, labels, num_classes=3, mesh=mesh_of(2), most=7
  )
  for _ in range(2):
    fits = list(regression.path(sweep[::15]))
    assert len(fits) == 3
  assert solve._cache_size() == before + 1


@pytest.mark.slow
def test_a_feature_that_never_changes_does_no_harm():
  x, labels = blobs(100, 8, 3, seed=6)
  dead = np.concatenate([x, np.zeros((100, 2)), np.ones((100, 1))], axis=1)
  fits = [
    next(
      logistic.Regression(
        features, labels, num_classes=3, mesh=mesh_of(1)
      ).path([1e-3])
    )
    for features in (x, dead)
  ]
  assert fits[1].objective == pytest.approx(fits[0].objective, rel=1e-4)
  assert np.abs(fits[1].weights[8:]).max() < 1e-2
