"""Linear transfer on digits: kept parts, devices, mistakes, and the sets."""

import dataclasses
import importlib
import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from byol_flax.commands import config_bounds
from byol_flax.evaluation import three_splits, transfer
from configs import sets
from configs import transfer as transfer_config
from input_pipeline import sources, subsets
from input_pipeline.errors import PreemptedError, RunError, UsageError
from tests.evaluation import corners, settings
from tests.evaluation.test_linear import Preempted
from tests.input_pipeline.test_folders import make_folder

# In one process of xdist, which makes what they share once.
pytestmark = pytest.mark.xdist_group("transfer")


def setting(workdir, devices=8, processes=None, **changes):
  """On parts of the digits; with the lines that it tells."""
  lines = []
  mine = settings.setting(
    transfer_config.get_config(),
    workdir,
    devices=devices,
    **{
      **settings.PARTS,
      "penalties": {"least": 1e-4, "most": 1e4, "count": 9},
      **changes,
    },
  )
  config_bounds.check(mine.config)
  processes = processes or mine.processes
  return dataclasses.replace(
    mine, processes=processes, tell=lines.append
  ), lines


@pytest.fixture(scope="module")
def on_eight(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("transfer")
  mine, lines = setting(workdir)
  return transfer.run(mine), lines, workdir


@pytest.mark.slow
def test_one_penalty_is_chosen_on_valid_and_reported_on_test(on_eight):
  found, lines, _ = on_eight
  path = found["path"]
  assert [row["penalty"] for row in path] == pytest.approx(
    [10.0**p for p in range(4, -5, -1)]
  )
  best = max(row["valid"] for row in path)
  first = next(row for row in path if row["valid"] == best)
  assert (found["penalty"], found["valid"]) == (first["penalty"], best)
  assert best > path[0]["valid"] + 0.1  # the strongest hinders
  assert 0.4 < found["top1"] < 1
  assert abs(found["top1"] - best) < 0.1
  assert [split["examples"] for split in found["splits"]] == [862, 575, 360]
  assert all(row["excess"] <= 1e-6 and not row["stalled"] for row in path)
  assert found["choices"][0] == "valid is train[60%:] of the data set."
  assert lines[-1].startswith(f"transfer, digits: top1 {found['top1']:.3f}")


@pytest.mark.slow
def test_the_report_is_of_a_fit_on_train_and_valid_together(on_eight):
  """By hand, from the kept features, with scikit-learn."""
  from sklearn.linear_model import LogisticRegression

  found, _, workdir = on_eight
  kept = {
    name: np.load(workdir / f"features-{name}.npz")
    for name in ("train", "valid", "test")
  }
  labels = {
    "train": subsets.labels_of(sources.open_source("digits", "train[:60%]")),
    "valid": subsets.labels_of(sources.open_source("digits", "train[60%:]")),
    "test": subsets.labels_of(sources.open_source("digits", "test")),
  }

  def both(values):
    return np.concatenate([values["train"], values["valid"]])

  x = both({name: file["features"] for name, file in kept.items()})
  model = LogisticRegression(C=1 / found["penalty"], max_iter=9999, tol=1e-6)
  model.fit(x.astype(float), both(labels))
  score = model.score(kept["test"]["features"], labels["test"])
  assert found["top1"] == pytest.approx(score, abs=0.003)  # 1 of 360


@pytest.mark.slow
def test_it_goes_on_after_preemptions_with_what_it_kept(on_eight, tmp_path):
  """It ends between batches and between penalties."""
  whole, _, _ = on_eight
  stops, again = 0, None
  for n in (2, 6, 9, 3, 10**6):
    stopped, _ = setting(tmp_path, processes=Preempted(n))
    try:
      again = transfer.run(stopped)
    except PreemptedError:
      stops += 1
  assert stops == 4
  assert again == whole
  # Done once, the images are not looked at again.
  last, _ = setting(tmp_path, processes=Preempted(1))
  assert transfer.run(last) == whole


@pytest.mark.slow
def test_kept_features_of_other_images_are_not_used(on_eight, tmp_path):
  whole, _, workdir = on_eight
  kept = dict(np.load(workdir / "features-test.npz"))
  kept["features"] = kept["features"] * 0
  np.savez(tmp_path / "features-test.npz", **kept | {"fingerprint": "other"})
  mine, _ = setting(tmp_path)
  assert transfer.run(mine)["top1"] == whole["top1"]


@pytest.mark.slow
def test_kept_features_that_lack_more_than_may_be_are_computed_again(
  on_eight, tmp_path
):
  """As an older version kept them, and what it found from them."""
  whole, _, workdir = on_eight
  shutil.copytree(workdir, tmp_path / "run")
  kept = dict(np.load(workdir / "features-test.npz"))
  for name in ("numbers", "features"):
    kept[name] = kept[name][10:]
  np.savez(tmp_path / "run/features-test.npz", **kept)
  path = tmp_path / "run/penalties.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), "top1": 0}))
  mine, _ = setting(tmp_path / "run", max_unreadable_share=0.1)
  found = transfer.run(mine)
  assert (found["top1"], found["splits"][2]["unreadable"]) == (0, 10)
  mine, _ = setting(tmp_path / "run")
  assert transfer.run(mine) == whole


@pytest.mark.slow
def test_three_devices_find_the_same(on_eight, tmp_path):
  whole, _, _ = on_eight
  three, _ = setting(tmp_path, devices=3)
  found = transfer.run(three)
  for one, other in zip(found["path"], whole["path"], strict=True):
    assert one["valid"] == pytest.approx(other["valid"], abs=0.004)  # 2 of 575
  assert found["top1"] == pytest.approx(whole["top1"], abs=0.006)  # 2 of 360


@pytest.mark.slow
def test_valid_is_drawn_from_train_class_by_class(tmp_path):
  mine, _ = setting(
    tmp_path,
    train_split="train",
    valid_split="",
    valid_per_class=7,
    metric="mean_per_class",
    penalties={"least": 1.0, "most": 1.0, "count": 1},
  )
  found = transfer.run(mine)
  sizes = [split["examples"] for split in found["splits"]]
  assert sizes == [1437 - 70, 70, 360]
  assert found["choices"][0] == ("valid is 70 of train, drawn with seed 0.")
  mine, _ = setting(
    tmp_path, train_split="train", valid_split="", valid_per_class=-1
  )
  splits = three_splits.open_splits(mine)
  test = subsets.labels_of(sources.open_source("digits", "test"))
  assert (
    np.bincount(splits.labels["valid"]).tolist() == np.bincount(test).tolist()
  )


@pytest.mark.slow
def test_images_of_several_classes(tmp_path):
  changes = {
    **corners.write(tmp_path),
    "penalties": {"least": 1e-2, "most": 1.0, "count": 3},
  }
  (tmp_path / "run").mkdir()
  mine, _ = setting(tmp_path / "run", **changes)
  found = transfer.run(mine)
  assert found["map11"] > 0.75
  assert three_splits.CHOICE_OF_DIFFICULT in found["choices"]
  for metric, told in (
    ("top1", "has no labels to evaluate with"),
    ("map11", "images of digits have one each"),
  ):
    other = {} if metric == "map11" else changes
    wrong, _ = setting(tmp_path / "no", **{**other, "metric": metric})
    with pytest.raises(UsageError, match=told):
      transfer.run(wrong)


@pytest.mark.slow
def test_mistakes_are_told_before_anything_is_computed(tmp_path):
  files = [f"train/{k}/{i}.png" for k in "abc" for i in range(4)]
  flat = [f"test/{i}.png" for i in range(3)]
  folder = make_folder(tmp_path / "data", [*files, *flat, "valid/a/0.png"])
  of_folder = {
    "data_name": folder,
    "train_split": "train[:8]",
    "valid_split": "train[8:]",
    "test_split": "valid",
  }
  for changes, told in (
    ({"valid_split": "train[50%:]"}, "share 144 images"),
    ({"test_split": "train[:10]"}, "share 10 images"),
    ({"valid_split": ""}, "expected one of the two"),
    ({"valid_per_class": 3}, "expected one of the two"),
    (
      {"train_split": "train[:200]", "valid_split": "", "valid_per_class": 30},
      "Class number . has .* from which 30",
    ),
    ({"train_size": 900}, "train has 862 images.* the paper's has 900"),
    ({**of_folder, "test_split": "test"}, "test_split=test needs images with"),
    (of_folder, "valid has 1 classes of which train has no image, such as c"),
    (
      {"data_name": f"folder:{tmp_path}/gone", "layout": "Put it there."},
      r"does not exist\. Put it there\.",
    ),
  ):
    mine, _ = setting(tmp_path / "run", **changes)
    with pytest.raises(UsageError, match=told):
      transfer.run(mine)
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_features_that_are_no_numbers_are_told(on_eight, tmp_path):
  _, _, workdir = on_eight
  kept = dict(np.load(workdir / "features-train.npz"))
  kept["features"][5, 3] = np.nan
  np.savez(tmp_path / "features-train.npz", **kept)
  mine, _ = setting(tmp_path)
  with pytest.raises(
    RunError, match=r"features of train\[:60%\] .* not finite"
  ):
    transfer.run(mine)


def test_the_twelve_sets_are_those_of_table_10():
  assert len(sets.SETS) == 12
  total = {  # Table 10: images of train and valid together, and of test
    "food101": (75_750, 25_250),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "sun397": (19_850, 19_850),
    "cars": (8_144, 8_041),
    "aircraft": (6_667, 3_333),
    "voc2007": (5_011, 4_952),
    "dtd": (3_760, 1_880),
    "pets": (3_680, 3_669),
    "flowers": (2_040, 6_149),
  }
  for name, chosen in sets.SETS.items():
    config = transfer_config.get_config(name)
    config_bounds.check(config)
    assert bool(config.valid_split) != bool(config.valid_per_class)
    if name in total:
      train, valid, test = chosen.sizes
      assert (train + valid, test) == total[name]
    if chosen.data_name.startswith("folder:"):
      assert "DIR/train/" in chosen.layout
  means = {"aircraft", "pets", "caltech101", "flowers"}
  assert means == {
    name
    for name, chosen in sets.SETS.items()
    if chosen.metric == "mean_per_class"
  }
  with pytest.raises(ValueError, match="Did you mean 'pets'"):
    transfer_config.get_config("pet")


def test_tfds_knows_the_sets_that_are_said_to_be_there():
  known = set(tfds.list_builders(with_community_datasets=False))
  for chosen in sets.SETS.values():
    if not chosen.data_name.startswith("folder:"):
      name, _, variant = chosen.data_name.partition("/")
      assert name in known
      if variant:
        module = importlib.import_module(tfds.builder_cls(name).__module__)
        configs = tfds.builder_cls(name).builder_configs
        assert variant in configs, (module, sorted(configs))
