"""Few labels: which, and that fine-tuning on them is chosen and reported."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from byol_flax.evaluation import place, semi_supervised
from configs import semi_supervised as semi_supervised_config
from input_pipeline import sources, subsets
from input_pipeline.errors import UsageError
from tests.evaluation import settings
from tests.input_pipeline.test_folders import make_folder

RNG = np.random.default_rng(8)


def test_a_share_of_every_class_and_smaller_ones_within_larger():
  labels = RNG.choice([-1, 0, 1, 2], 500, p=[0.1, 0.6, 0.28, 0.02])
  counts = np.bincount(labels[labels >= 0])
  drawn = {s: subsets.balanced(labels, s, 7) for s in (0.01, 0.1, 0.5, 1.0)}
  for share, indices in drawn.items():
    assert np.all(np.diff(indices) > 0)
    found = np.bincount(labels[indices], minlength=3)
    expected = np.maximum(1, np.floor(share * counts + 0.5))
    np.testing.assert_array_equal(found, expected)
  shares = sorted(drawn)
  for less, more in itertools.pairwise(shares):
    assert set(drawn[less]) < set(drawn[more])
  other = subsets.balanced(labels, 0.1, 8)
  assert set(other) != set(drawn[0.1])
  np.testing.assert_array_equal(other, subsets.balanced(labels, 0.1, 8))


def test_a_list_is_read_back_whatever_the_folders(tmp_path):
  source = sources.open_source("digits", "train[:50]")
  indices = np.array([3, 7, 40])
  text = subsets.write_list(source, indices)
  moved = "".join(f"/elsewhere/{line}\n" for line in text.splitlines())
  (tmp_path / "list.txt").write_text(moved + "\n")
  wanted = subsets.names_in(str(tmp_path / "list.txt"))
  other = sources.open_source("digits", "test[:9]")
  found, shared = subsets.listed(source, other, wanted, "list.txt")
  assert shared == 0
  np.testing.assert_array_equal(found, indices)
  chosen = sources.Part(source, "listed", found)
  assert [chosen.example_name(i) for i in range(3)] == text.splitlines()
  assert chosen[1]["label"] == source[7]["label"]
  part = sources.open_source("digits", "train[:7]")
  with pytest.raises(UsageError, match=r"2 of the 3 images of .* are not in"):
    subsets.listed(part, other, wanted, "list.txt")
  with pytest.raises(UsageError, match="cannot be read"):
    subsets.names_in(str(tmp_path / "none.txt"))
  with pytest.raises(UsageError, match="names no image"):
    subsets.listed(source, other, set(), "list.txt")


def test_a_name_of_several_images_is_not_guessed(tmp_path):
  """Of folders of classes, each with its own 0.png."""
  folder = make_folder(
    tmp_path, [f"train/{k}/{i}.png" for k in "ab" for i in range(3)]
  )
  train, valid = (
    sources.open_source(folder, split) for split in ("train[:4]", "train[4:]")
  )
  text = subsets.write_list(train, np.array([1, 3]))
  assert text == "a/1.png\nb/0.png\n"
  with pytest.raises(
    UsageError, match=r"2 of the 2 names of .* several images"
  ):
    subsets.listed(train, valid, {"1.png", "0.png"}, "list.txt")


@pytest.mark.slow
def test_listed_images_on_which_is_chosen_are_not_trained_on(tmp_path):
  whole = sources.open_source("digits", "train")
  last = len(whole) - 1
  (tmp_path / "list.txt").write_text(
    subsets.write_list(whole, np.array([3, 7, last]))
  )
  lines = []
  told = setting(tmp_path, subset_file=str(tmp_path / "list.txt"))
  told = dataclasses.replace(told, tell=lines.append)
  train, valid = (
    told.open_split(f"{name}_split") for name in ("train", "valid")
  )
  (part,) = semi_supervised._parts(told, train, valid).values()
  np.testing.assert_array_equal(part.examples, [3, 7])
  assert "1 of the 3 images" in lines[0]
  # What was kept is of the list that the evaluation began with.
  (tmp_path / "scores-listed.json").touch()
  place.claim(str(tmp_path), {"config": {}}, told.processes)
  semi_supervised._parts(told, train, valid)
  (tmp_path / "list.txt").write_text(
    subsets.write_list(whole, np.array([3, 8]))
  )
  with pytest.raises(UsageError, match="list of subset_file are not those"):
    semi_supervised._parts(told, train, valid)


def setting(workdir, **changes):
  return settings.setting(
    semi_supervised_config.get_config(),
    workdir,
    **{
      **settings.PARTS,
      "shares": (0.1,),
      "batch_size": 16,
      "epochs": (2.0, 8.0),
      "learning_rates": (1e-4, 0.8),
      **changes,
    },
  )


@pytest.mark.slow
def test_the_grid_is_tried_and_the_best_reported(tmp_path):
  found = semi_supervised.run(setting(tmp_path))
  (row,) = found["rows"]
  assert row["examples"] == len(
    (tmp_path / "labels-10-percent.txt").read_text().splitlines()
  )
  assert (row["learning_rate"], row["epochs"]) == (0.8, 8.0)
  scores = row["valid_top1"]
  assert set(scores) == {
    f"10-percent-lr{r:g}-{e}epochs" for e in (2, 8) for r in (1e-4, 0.8)
  }
  best = scores["10-percent-lr0.8-8epochs"]
  assert (
    best == max(scores.values()) > 0.3 > scores["10-percent-lr0.0001-2epochs"]
  )
  assert row["top5"] > row["top1"] > 0.3
  # Nothing but figures and records is left of the trainings.
  assert not list(tmp_path.glob("*/checkpoints"))
  (tmp_path / "scores-10-percent.json").unlink()
  again = semi_supervised.run(setting(tmp_path))
  assert again == found


@pytest.mark.slow
def test_mistakes_are_told_before_anything_is_trained(tmp_path):
  for changes, told in (
    ({"shares": (0.01,)}, "batch_size is 16, more than the 10 images"),
    ({"epochs": (0.1,)}, "are 0 updates"),
    ({"valid_split": "train[:10]"}, "share 10 images"),
  ):
    with pytest.raises(UsageError, match=told):
      semi_supervised.run(setting(tmp_path, **changes))
  assert not [path for path in tmp_path.iterdir() if path.is_dir()]
  assert json.dumps(semi_supervised_config.get_config().to_dict())
