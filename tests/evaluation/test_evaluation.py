"""kNN and few-label probes."""

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from byol_flax.evaluation import few_label, knn, representations

RNG = np.random.default_rng(0)


def test_knn_against_scikit_learn():
  bank = RNG.normal(size=(300, 6)) + 0.2
  labels = RNG.integers(0, 3, 300)
  queries = RNG.normal(size=(600, 6)) * 5  # more than one tile
  oracle = KNeighborsClassifier(1, metric="cosine").fit(bank, labels)
  found = knn.predict(bank, labels, queries, k=1, num_classes=3)
  np.testing.assert_array_equal(found, oracle.predict(queries))


def test_knn_votes_and_breaks_ties_by_closeness():
  bank, labels = RNG.normal(size=(80, 4)), RNG.integers(0, 5, 80)
  queries = RNG.normal(size=(50, 4))
  unit = bank / np.linalg.norm(bank, axis=1, keepdims=True)
  expected = []
  for query in queries:
    cosine = unit @ query / np.linalg.norm(query)
    nearest = np.argsort(-cosine)[:6]
    score = [
      (
        (labels[nearest] == c).sum(),
        cosine[nearest][labels[nearest] == c].sum(),
        -c,
      )
      for c in range(5)
    ]
    expected.append(int(np.argmax([s[0] + (s[1] + s[0]) / 13 for s in score])))
  found = knn.predict(bank, labels, queries, k=6, num_classes=5)
  np.testing.assert_array_equal(found, expected)


def test_knn_ignores_missing_labels():
  bank = np.eye(3)
  labels = np.array([0, -1, 2])
  score = knn.top1(
    bank, labels, np.eye(3), np.array([0, 1, -1]), k=1, num_classes=3
  )
  assert score == 0.5  # the third does not count, the second cannot be found


def test_draws_are_balanced_and_fixed_by_the_seed():
  labels = np.repeat([0, 1, 2, -1], [30, 12, 5, 20])
  chosen = few_label.draw_examples(labels, 5, np.random.default_rng(3))
  assert np.bincount(labels[chosen]).tolist() == [5, 5, 5]
  assert len(set(chosen)) == 15
  again = few_label.draw_examples(labels, 5, np.random.default_rng(3))
  np.testing.assert_array_equal(chosen, again)


def blobs(n, spread):
  labels = RNG.integers(0, 4, n)
  centres = np.random.default_rng(9).normal(size=(4, 10))
  return centres[labels] + spread * RNG.normal(size=(n, 10)), labels


def test_few_label_probe_separates_what_is_separable():
  train, labels = blobs(400, 0.3)
  test, test_labels = blobs(300, 0.3)
  options = {"draws": 4, "inverse_penalty": 1.0, "seed": 0}
  good = few_label.accuracies(
    train, labels, test, test_labels, per_class=5, **options
  )
  assert good.shape == (4,)
  assert good.mean() > 0.97
  noise = few_label.accuracies(
    RNG.normal(size=train.shape),
    labels,
    test,
    test_labels,
    per_class=5,
    **options,
  )
  assert noise.mean() < 0.5
  # Standardised: the scale of a feature does not matter, nor a constant one.
  scale = np.array([1e3, 1e-3] * 5)
  same = few_label.accuracies(
    train * scale, labels, test * scale, test_labels, per_class=5, **options
  )
  np.testing.assert_allclose(same, good)


def test_probes_that_the_smallest_class_allows():
  labels = np.repeat([0, 1, 2, -1], [30, 4, 12, 99])
  names = ("ant", "bee", "cat")
  assert few_label.available(labels, (1, 4), names) == ([1, 4], "")
  had, told = few_label.available(labels, (1, 5, 10), names)
  assert had == [1]
  assert told == (
    "Left out, because class bee has 4 label(s): linear, 5/class, 10/class"
  )
  had, told = few_label.available(np.array([2, 2, -1]), (1,), names)
  assert had == []
  assert "fewer than two classes" in told


def test_knn_is_left_when_no_probe_can_be_had():
  told = []
  rows = representations.evaluate(
    ("byol",),
    lambda name: [(np.eye(9), np.arange(9))] * 2,
    class_names=[str(i) for i in range(9)],
    per_class=(5,),
    draws=1,
    inverse_penalty=1.0,
    seed=0,
    neighbours=1,
    tell=told.append,
  )
  assert rows == [representations.Row("byol", {}, 1.0)]
  assert told == ["Left out, because class 0 has 1 label(s): linear, 5/class"]
  header, row = representations.table(rows, 1).splitlines()
  assert header.split() == ["representation", "1-NN,", "all", "labels"]
  assert row.split() == ["byol", "1.000"]
