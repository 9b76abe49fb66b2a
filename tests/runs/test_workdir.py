"""The folder of a run: writable, set aside, the same run or not."""

import json
import os

import pytest

from byol_flax.runs import workdir
from byol_flax.runs.distributed import Processes
from configs import byol_digits
from input_pipeline.errors import UsageError


def record(**changes):
  config = byol_digits.get_config()
  for name, value in changes.items():
    config.update_from_flattened_dict({name: value})
  return {"config": json.loads(json.dumps(config.to_dict()))}


def test_a_new_workdir_and_the_same_config_are_fine():
  workdir.check_same_run(None, record(), "w")
  workdir.check_same_run(record(), record(), "w")


def test_what_does_not_change_learning_may_change():
  now = record(
    **{
      "data.name": "folder:/moved",
      "loader.num_workers": 7,
      "checkpoint.every_steps": 3,
      "report.view_hashes": True,
      "evaluation.every_steps": 9,
      "model.encoder.recompute": True,
      "augment.device": "accelerator",
      "augment.cache": "device",
    }
  )
  workdir.check_same_run(record(), now, "w")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"batch_size": 32}, "batch_size: 64 there, 32 now"),
    (
      {"model.encoder.architecture": "resnet50"},
      r"model\.encoder\.architecture: resnet8 there, resnet50 now",
    ),
    ({"seed": 1}, "seed: 0 there, 1 now"),
    ({"augment.view2.hue": 0.25}, r"augment\.view2\.hue: 0\.0 there, 0\.25"),
    ({"data.split": "test"}, r"data\.split: train there, test now"),
  ],
)
def test_contradictions_are_named(change, message):
  with pytest.raises(UsageError, match=message + r".*--restart"):
    workdir.check_same_run(record(), record(**change), "w")


def test_every_differing_key_is_named_and_no_other():
  with pytest.raises(UsageError) as error:
    workdir.check_same_run(
      record(), record(batch_size=32, epochs=3), "the/workdir"
    )
  text = str(error.value)
  assert "batch_size" in text
  assert "epochs" in text
  assert "the/workdir" in text
  assert text.count(" there, ") == 2


def test_more_epochs_are_told_what_to_do_instead():
  with pytest.raises(UsageError, match=r"110\.0 there, 200\.0 now.*--init=/w"):
    workdir.check_same_run(record(), record(epochs=200.0), "/w")
  with pytest.raises(UsageError) as error:
    workdir.check_same_run(record(), record(epochs=20.0), "/w")
  assert "--init" not in str(error.value)


def test_check_writable_makes_the_folder_and_leaves_nothing(tmp_path):
  folder = tmp_path / "a" / "b"
  workdir.check_writable(str(folder))
  assert folder.is_dir()
  assert not list(folder.iterdir())


def test_a_workdir_that_is_a_file_is_told(tmp_path):
  (tmp_path / "file").write_text("x")
  with pytest.raises(UsageError, match=r"file/run cannot be written"):
    workdir.check_writable(str(tmp_path / "file" / "run"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_workdir_is_told(tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(UsageError, match="cannot be written"):
    workdir.check_writable(str(tmp_path))


def test_a_workdir_has_one_run_at_a_time(tmp_path):
  with (
    workdir.taken(str(tmp_path / "run"), Processes()),
    pytest.raises(UsageError, match=f"Another run .process {os.getpid()} on"),
    workdir.taken(str(tmp_path / "run"), Processes()),
  ):
    pass
  with workdir.taken(str(tmp_path / "run"), Processes()):  # it was let go of
    pass
