"""An evaluation in two processes, killed or not, is that of one."""

import json
import time

import pytest

from byol_flax.runs import run_files
from tests import forks, trainers

# The network that is traced fastest.
NARROW = """
from configs import byol_digits

def get_config(_):
  config = byol_digits.get_config()
  config.model.encoder.update(architecture="basic:1:4:8", width=4)
  return config
"""

LINEAR = (
  "--config=configs/linear.py",
  "--config.train_split=train[:60%]",
  "--config.valid_split=train[60%:]",
  "--config.batch_size=48",
  "--config.epochs=3",
  "--config.learning_rates=(0.8,0.1)",
  "--config.num_workers=0",
  "--config.checkpoint.every_steps=20",
)


KNN = (
  "--config=configs/knn.py",
  "--config.batch_size=50",  # of 1,437 and 360 images, and of four devices
  "--config.neighbours=(1,20)",
  "--config.num_workers=0",
)


GRID = (
  "--config=configs/semi_supervised.py",
  "--config.train_split=train[:60%]",
  "--config.valid_split=train[60%:]",
  "--config.shares=(0.1,)",
  "--config.batch_size=16",
  "--config.epochs=(2.0,)",
  "--config.learning_rates=(0.1,0.2,0.4,0.05)",
  "--config.num_workers=0",
)


TRANSFER = (
  "--config=configs/transfer.py",
  "--config.train_split=train[:60%]",
  "--config.valid_split=train[60%:]",
  "--config.batch_size=48",  # calibrates alike on one device and on four
  "--config.penalties.count=9",
  "--config.num_workers=0",
)


def both(tmp_path, flags, killed_at=None, of_two=None, part="."):
  """Results of one process, and of two with two devices each.

  Those two are killed once `killed_at` finds something in their workdir, and
  started again. They may have flags of their own, and their result a folder.
  """
  two = tmp_path / "two"
  (tmp_path / "narrow.py").write_text(NARROW)
  encoder = f"--encoder=random:{tmp_path}/narrow.py"

  def start():
    return trainers.Trainers(
      two,
      (*(of_two or flags), encoder),
      processes=2,
      devices=2,
      command="evaluate",
    )

  if killed_at:
    killed = start()
    deadline = time.monotonic() + 600
    while not killed_at(two):
      assert killed.running(), killed.logs()
      assert time.monotonic() < deadline, killed.logs()
      time.sleep(0.02)
    killed.kill()
    assert not (two / "result.json").exists()
  start().finish()
  done = forks.byol("evaluate", *flags, encoder, f"--workdir={tmp_path}/one")
  assert done.returncode == 0, done.stderr
  one, other = (
    json.loads((tmp_path / name / "result.json").read_text())
    for name in ("one", f"two/{part}")
  )
  assert other["devices"] == "4 cpu devices of 2 processes"
  return one, other


@pytest.mark.slow
def test_linear_evaluation_killed_in_two_processes_finds_what_one_finds(
  tmp_path,
):
  results = both(
    tmp_path, LINEAR, lambda two: trainers.saves(two / "crop_flip")
  )
  (one,), (other,) = (result["rows"] for result in results)
  assert one["learning_rate"] == other["learning_rate"] == 0.8
  for name in ("top1", "top5"):  # rounding may turn one of 360
    assert one[name] == pytest.approx(other[name], abs=0.004)
  updates = [
    line["step"]
    for line in trainers.lines(tmp_path / "two/crop_flip/metrics.jsonl")
    if line["kind"] == "update"
  ]
  assert updates == sorted(set(updates))
  assert updates[-1] == 53


@pytest.mark.slow
def test_the_neighbours_in_two_processes_are_those_in_one(tmp_path):
  """Of the two in a suite, where the folder of another part is a run's."""
  (tmp_path / "two/linear").mkdir(parents=True)
  (tmp_path / "two/linear" / run_files.MARKER).write_text("{}")
  (tmp_path / "two/linear/config.json").write_text("{}")
  suite = (
    "--suite=paper:knn,linear",
    *(x.replace("g.", "g.knn.") for x in KNN[1:]),
  )
  one, two = both(tmp_path, KNN, of_two=suite, part="knn")
  report = json.loads((tmp_path / "two/report.json").read_text())
  assert "the folder of a training" in report["parts"]["linear"]["why_not"]
  assert two["counted"] == one["counted"] == {"bank": 1437, "queries": 360}
  for vote in ("majority", "weighted"):
    for k in ("1", "20"):  # rounding may turn one of 360
      found = one["top1"][vote][k], two["top1"][vote][k]
      assert found[0] == pytest.approx(found[1], abs=0.003)
      assert found[0] > 0.5


@pytest.mark.slow
def test_a_grid_in_two_processes_that_were_killed_is_that_of_one(tmp_path):
  """Both forget the same trainings, in the same order."""
  (one,), (other,) = (
    result["rows"]
    for result in both(
      tmp_path, GRID, lambda two: list(two.glob("scores-*lr0.4*.json"))
    )
  )
  for name in ("learning_rate", "epochs", "examples"):
    assert one[name] == other[name]
  assert len(one["valid_top1"]) == 4
  for point, score in one["valid_top1"].items():  # rounding may turn 6 of 575
    assert other["valid_top1"][point] == pytest.approx(score, abs=0.0105)
  assert not list(tmp_path.glob("two/*/checkpoints"))


@pytest.mark.slow
def test_a_transfer_of_two_processes_that_were_killed_is_that_of_one(tmp_path):
  one, other = both(
    tmp_path, TRANSFER, lambda two: (two / "features-valid.npz").exists()
  )
  assert other["top1"] == pytest.approx(one["top1"], abs=0.003)
  assert len(one["path"]) == len(other["path"]) == 9
  for a, b in zip(one["path"], other["path"], strict=True):
    assert a["objective"] == pytest.approx(b["objective"], rel=1e-5)
    assert a["valid"] == pytest.approx(b["valid"], abs=0.004)  # 2 of 575
