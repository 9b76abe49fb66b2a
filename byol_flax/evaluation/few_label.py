"""Linear probe from few labels per class, on frozen features."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression


def available(
  labels: np.ndarray, per_class: Sequence[int], class_names: Sequence[str]
) -> tuple[list[int], str]:
  """Which probes the labels allow, and a sentence about the others.

  Args:
    labels: int [N]; -1 is no class.
    per_class: for each probe, how many labels of each class it needs.
    class_names: of all classes.

  Returns:
    Those of `per_class` for which every class has enough labels, and a sentence
    about the rest, "" if there is none.
  """
  classes, counts = np.unique(labels[labels >= 0], return_counts=True)
  least = int(counts.min()) if len(classes) > 1 else 0
  had = [count for count in per_class if count <= least]
  missing = [f"{count}/class" for count in per_class if count > least]
  if not missing:
    return had, ""
  reason = (
    f"class {class_names[classes[counts.argmin()]]} has {least} label(s)"
    if least
    else "fewer than two classes have labels"
  )
  return had, f"Left out, because {reason}: linear, {', '.join(missing)}"


def draw_examples(
  labels: np.ndarray, per_class: int, rng: np.random.Generator
) -> np.ndarray:
  """Draws the indices of `per_class` examples of every class, each once.

  Every class of `labels` must have as many, see `available`.

  Args:
    labels: int [N]; -1 is no class.
    per_class: examples of each class.
    rng: source of the draw.

  Returns:
    int [K * per_class].
  """
  classes = np.unique(labels[labels >= 0])
  chosen = [
    rng.choice(np.flatnonzero(labels == c), per_class, replace=False)
    for c in classes
  ]
  return np.concatenate(chosen)


def accuracies(
  train: np.ndarray,
  train_labels: np.ndarray,
  test: np.ndarray,
  test_labels: np.ndarray,
  *,
  per_class: int,
  draws: int,
  inverse_penalty: float,
  seed: int,
) -> np.ndarray:
  """Test accuracy of a logistic regression, for several draws of labels.

  Features are standardised by the mean and deviation of all training features,
  for which no labels are needed. The draws depend on seed, labels and
  `per_class` only, so different representations are compared on the same
  examples.

  Args:
    train: float [N, F].
    train_labels: int [N].
    test: float [M, F].
    test_labels: int [M]; rows with -1 do not count.
    per_class: how many labels of each class.
    draws: how many times to draw.
    inverse_penalty: C of scikit-learn's LogisticRegression.
    seed: of the draws.

  Returns:
    float [draws], each in [0, 1].
  """
  mean, deviation = train.mean(axis=0), train.std(axis=0)
  scale = np.where(deviation > 0, deviation, 1)
  train, test = (train - mean) / scale, (test - mean) / scale
  counted = test_labels >= 0
  found = []
  for draw in range(draws):
    rng = np.random.default_rng([seed, per_class, draw])
    chosen = draw_examples(train_labels, per_class, rng)
    probe = LogisticRegression(C=inverse_penalty, max_iter=1000)
    probe.fit(train[chosen], train_labels[chosen])
    found.append(probe.score(test[counted], test_labels[counted]))
  return np.array(found)
