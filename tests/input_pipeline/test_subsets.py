"""Labels of whole splits, and examples held out class by class."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from input_pipeline import subsets
from input_pipeline.errors import UsageError
from input_pipeline.sources import open_source
from tests.input_pipeline.test_tfds_sources import png, store


def test_an_object_that_is_only_difficult_does_not_count(tmp_path):
  several = tfds.features.Sequence(tfds.features.ClassLabel(num_classes=4))
  name = store(
    tmp_path,
    {
      "image": tfds.features.Image(),
      "labels": several,
      "labels_no_difficult": several,
    },
    [
      {"image": png(0), "labels": [1, 3], "labels_no_difficult": [1]},
      {"image": png(1), "labels": [0], "labels_no_difficult": [0]},
      {"image": png(2), "labels": [], "labels_no_difficult": []},
    ],
  )
  source = open_source(name, "holdout[:3]", str(tmp_path))
  assert source.num_classes == 0
  assert source[0]["label"] == -1
  assert sorted(subsets.labels_of(source).tolist()) == [
    [0, 0, 0, 0],
    [0, 1, 0, -1],
    [1, 0, 0, 0],
  ]


def test_as_many_of_each_class_are_held_out_as_asked_for():
  labels = np.random.default_rng(0).integers(-1, 4, 200)
  kept, held = subsets.hold_out(labels, (3, 0, 1, 7), seed=4)
  assert np.bincount(labels[held]).tolist() == [3, 0, 1, 7]
  both = np.sort(np.concatenate([kept, held]))
  assert both.tolist() == np.flatnonzero(labels >= 0).tolist()
  again, other = (
    subsets.hold_out(labels, (3, 0, 1, 7), seed)[1] for seed in (4, 5)
  )
  assert again.tolist() == held.tolist() != other.tolist()


def test_a_class_is_not_held_out_whole():
  labels = np.array([0, 0, 0, 1, -1])
  subsets.hold_out(labels, (2, 0), seed=0)
  with pytest.raises(UsageError, match="number 1 has 1 images, from which 1"):
    subsets.hold_out(labels, (1, 1), seed=0)


def test_two_splits_are_one_source():
  first, second = (open_source("digits", x) for x in ("test[:3]", "train[:2]"))
  joined = subsets.Joined(first, second)
  parts = [*(first for _ in range(3)), *(second for _ in range(2))]
  for i, (part, number) in enumerate(zip(parts, (0, 1, 2, 0, 1), strict=True)):
    assert (joined[i]["image"] == part[number]["image"]).all()
    assert joined.example_name(i) == part.example_name(number)
    assert joined.file_name(i) == part.file_name(number)
    assert joined.file_of(i) == part.file_of(number)
  assert len(joined) == 5
  assert joined.split == "test[:3]+train[:2]"
  assert joined.fingerprint == f"{first.fingerprint}+{second.fingerprint}"


def test_what_has_no_label_in_two_splits_is_numbered_through(tmp_path):
  made = []
  for folder, labels in (("one", [0, 1, 1]), ("two", [-1, -1])):
    name = store(
      tmp_path / folder,
      {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(num_classes=2),
      },
      [{"image": png(i), "label": x} for i, x in enumerate(labels)],
    )
    made.append(open_source(name, "holdout", str(tmp_path / folder)))
  assert subsets.Joined(*made).unlabelled().tolist() == [3, 4]
  assert subsets.Joined(*made[::-1]).unlabelled().tolist() == [0, 1]


def test_numbers_are_those_of_the_source():
  numbered = subsets.Numbered(open_source("digits", "test[10:20]"))
  assert [numbered[i]["label"] for i in range(10)] == list(range(10))
  assert numbered[3]["image"].shape == (8, 8, 3)
