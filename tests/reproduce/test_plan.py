"""Which runs a table is: shared settings, seeds, what cannot be changed."""

import pytest

from byol_flax.commands import config_file
from byol_flax.reproduce import plan
from input_pipeline.errors import UsageError


def planned(table, *flags, scale="digits", seeds=1):
  def load(arg, changed):
    given = f"--config=configs/ablations.py:{arg}"
    return config_file.load_config([given, *(flags if changed else ())])

  return plan.make(table, scale, seeds, load)


def without_new_keys():
  """The baseline as a version before format 2 would have it."""
  config = planned("20").baseline.copy_and_resolve_references()
  with config.unlocked():
    del config.objective, config.scaling, config.model.initializer
  return config


def names(table, *flags, **more):
  return {
    (run.row, run.config.seed): run.name
    for run in planned(table, *flags, **more).runs()
  }


@pytest.mark.slow
def test_runs_with_equal_settings_have_one_name():
  found = names("5a", seeds=2)
  assert len(found) == 6 * 2
  # The network before its first update lies beside the one that is trained.
  assert found["initialisation", 0] == found["1", 0]
  assert len(set(found.values())) == 5 * 2
  shared = names("5b")["predictor_target_0", 0]
  assert found["0.99", 0] == shared == names("20")["l2", 0]
  # Digits have no colours in any case.
  assert names("3b")["byol_no_grayscale", 0] == shared
  assert names("20", "--config.epochs=9")["l2", 0] != shared
  # How a machine reads its images changes no run.
  assert names("20", "--config.loader.num_workers=0")["l2", 0] == shared
  # Nor does a key that came after format 1, at the value of before.
  assert plan.digest_of(without_new_keys()) == shared.split("-")[0]
  assert names("20", "--config.seed=1")["l2", 1] == found["0.99", 1]


@pytest.mark.slow
def test_a_row_that_a_scale_cannot_do_is_left_out_with_the_reason():
  found = planned("16")
  assert set(found.left_out) == {"byol_64", "simclr_64"}
  assert "would leave BatchNorm one image" in found.left_out["byol_64"]
  assert len(found.runs()) == 12
  assert not planned("16", scale="imagenet").left_out


def test_settings_are_told_as_what_a_row_changes():
  found = planned("5a", "--config.epochs=9")
  assert found.changed == {"epochs": 9.0}
  assert found.settings("0.99") == {}
  assert found.settings("0.9") == {"base_target_decay": 0.5}


@pytest.mark.parametrize(
  ("table", "flag", "message"),
  [
    ("6", "", "There is no ablation '6'; known are 3a, 3b, 5a"),
    ("5a", "--config.base_target_decay=0.5", "would be the same in all rows"),
    ("5a", "--config.epoch=3", "epoch"),
    ("5a", "--config.epochs=-3", "epochs is -3.0; expected"),
    ("5a", "--config.watchdog.action=roll_back", "the rows that collapse"),
    ("5a", "--config.watchdog.action=stop", "expected off or warn"),
    ("5a", "--config.evaluation.crop_ratio=0.5", "it is 1.0 at this scale"),
    ("5a", "--config.gradient_dtype=activations", "leave it out"),
  ],
)
def test_bad_input_is_told(table, flag, message):
  with pytest.raises(UsageError, match=message):
    planned(table, *filter(None, [flag]))


def test_an_unknown_scale_is_told():
  with pytest.raises(UsageError, match=r"no scale 'digit'.*mean 'digits'"):
    planned("5a", scale="digit")
