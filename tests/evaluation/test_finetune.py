"""Fine-tuning on another set: the grid, a part of it, and both splits."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax.commands import config_bounds
from byol_flax.evaluation import finetune, three_splits, whole_network
from configs import finetune as finetune_config
from configs import sets
from configs import transfer as transfer_config
from input_pipeline import sources, subsets
from input_pipeline.errors import RunError
from tests.evaluation import corners, settings


def setting(workdir, **changes):
  return settings.setting(
    finetune_config.get_config(),
    workdir,
    **{
      **settings.PARTS,
      "batch_size": 32,
      "steps": 60,
      "learning_rates": (1e-5, 0.1),
      "weight_decays": (0.0, 1e-4),
      **changes,
    },
  )


def test_the_grids_of_the_paper():
  config = finetune_config.get_config()
  np.testing.assert_allclose(
    config.learning_rates, [10 ** (-4 + k / 2) for k in range(7)]
  )
  assert len(config.learning_rates) * len(config.weight_decays) == 56
  random = finetune_config.get_config("random=1")
  assert random.steps == 40_000
  assert len(random.learning_rates) == 7
  assert len(random.weight_decays) == 8
  np.testing.assert_allclose(random.weight_decays[-1], 10**-1.5)


@pytest.mark.parametrize("name", sets.SETS)
def test_a_set_is_divided_as_for_the_linear_transfer(name):
  tuned = finetune_config.get_config(f"{name},random=1")
  config_bounds.check(tuned)
  assert tuned.steps == 40_000
  linear = transfer_config.get_config(name)
  for key in (
    "data_name",
    "train_split",
    "valid_split",
    "test_split",
    "metric",
    "valid_per_class",
    "layout",
  ):
    assert tuned[key] == linear[key]
  assert [tuned[f"{split}_size"] for split in ("train", "valid", "test")] == [
    *sets.SETS[name].sizes
  ]


def test_arguments_that_name_no_set_are_told():
  with pytest.raises(ValueError, match="Did you mean 'pets'"):
    finetune_config.get_config("pet,random=1")
  with pytest.raises(ValueError, match="names 2 data sets"):
    finetune_config.get_config("pets,dtd")
  with pytest.raises(ValueError, match="Unknown config argument 'random'"):
    transfer_config.get_config("pets,random=1")


def test_two_sources_are_read_as_one():
  first, second = (
    sources.open_source("digits", split) for split in ("train[:3]", "test[5:9]")
  )
  both = subsets.Joined(first, second)
  assert len(both) == 7
  for i in range(7):
    source, number = (first, i) if i < 3 else (second, i - 3)
    np.testing.assert_array_equal(both[i]["image"], source[number]["image"])
    assert both[i]["label"] == source[number]["label"]
    assert both.example_name(i) == source.example_name(number)


@pytest.mark.slow
def test_a_part_of_the_grid_is_tried_and_said(tmp_path):
  told = setting(tmp_path, budget=3)
  found = finetune.run(told)
  assert (found["tried"], found["of"]) == (3, 4)
  assert found["learning_rate"] == 0.1
  assert found["weight_decay"] == found["listed_weight_decay"] / 0.1
  assert max(found["valid"].values()) > 0.5 > min(found["valid"].values())
  assert found["top1"] > 0.5
  assert [split["examples"] for split in found["splits"]] == [862, 575, 360]
  assert not list(tmp_path.glob("*/checkpoints"))
  assert finetune.run(told) == found


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_no_result(tmp_path, value):
  """As after a last update that diverged; no metric of them would tell."""
  split = sources.open_source("digits", "test[:9]")
  functions = types.SimpleNamespace(
    logits=lambda _, images: {"logits": jnp.full((len(images), 10), value)}
  )
  state = types.SimpleNamespace(params={}, batch_stats={})
  with pytest.raises(RunError, match=r"of test\[:9\] is not finite"):
    whole_network.logits(setting(tmp_path), functions, state, split)


@pytest.mark.slow
def test_images_of_several_classes(tmp_path):
  changes = corners.write(tmp_path)
  found = finetune.run(
    setting(
      tmp_path / "run",
      **changes,
      batch_size=16,
      steps=60,
      learning_rates=(0.3,),
      weight_decays=(0.0,),
    )
  )
  assert found["map11"] > 0.9
  assert [split["classes"] for split in found["splits"]] == [3, 3, 3]
  assert {finetune.CHOICE_OF_LOSS, three_splits.CHOICE_OF_DIFFICULT} <= set(
    found["choices"]
  )
