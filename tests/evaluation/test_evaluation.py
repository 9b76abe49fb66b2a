"""Probes on few labels."""

import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.evaluation import (
  encoder,
  few_label,
  protocol,
  representations,
)
from configs import few_label as few_label_config
from input_pipeline.errors import PreemptedError
from tests.evaluation import settings
from tests.evaluation.test_linear import Preempted

RNG = np.random.default_rng(0)


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


@pytest.mark.slow
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
    mesh=sharding.make_mesh(),
    tell=told.append,
  )
  assert rows == [representations.Row("byol", {}, 1.0)]
  assert told == ["Left out, because class 0 has 1 label(s): linear, 5/class"]
  header, row = representations.table(rows, 1).splitlines()
  assert header.split() == ["representation", "1-NN,", "all", "labels"]
  assert row.split() == ["byol", "1.000"]


def without_weights(workdir, **changes):
  return settings.setting(
    few_label_config.get_config(),
    workdir,
    opened=encoder.without_weights(
      settings.small_config(), settings.mesh_of(2)
    ),
    **changes,
  )


def test_a_preemption_ends_it_between_two_batches(tmp_path):
  mine = without_weights(tmp_path, representations=("raw_pixels",))
  object.__setattr__(mine, "processes", Preempted(2))
  with pytest.raises(PreemptedError):
    representations.run(mine)


def test_a_first_batch_that_is_slow_is_waited_for_in_silence(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(protocol, "_SECONDS_BETWEEN_LINES", -1)
  setting = without_weights(tmp_path)
  part_done = setting.progress(3, 10)
  part_done()
  assert setting.console.getvalue() == ""
  part_done()
  assert setting.console.getvalue().startswith("batch 1/3 | ")
