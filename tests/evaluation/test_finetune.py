"""Fine-tuning on another set: the grid, a part of it, and both splits."""

import numpy as np
import pytest

from byol_flax.evaluation import finetune
from configs import finetune as finetune_config
from input_pipeline import sources, subsets
from tests.evaluation import settings


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
