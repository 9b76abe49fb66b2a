"""An evaluation in two processes, killed or not, is that of one."""

import json
import time

import pytest

from byol_flax.runs import run_files
from tests import forks, trainers

pytestmark = pytest.mark.xdist_group("together")

# The network that is traced fastest.
NARROW = """
from configs import byol_digits

def get_config(_):
  config = byol_digits.get_config()
  config.model.encoder.update(architecture="basic:1:4:8", width=4)
  return config
"""

KNN = (
  "batch_size=50",  # of 1,437 and 360 images, and of four devices
  "neighbours=(1,20)",
)
TRANSFER = (
  "data_name=digits",
  "train_split=train[:60%]",
  "valid_split=train[60%:]",
  *(f"{split}_size=0" for split in ("train", "valid", "test")),  # any
  "batch_size=48",  # calibrates alike on one device and on four
  # Weaker ones are fitted in so many iterations that rounding shows.
  "penalties.least=1e-3",
  "penalties.count=5",
)
LINEAR = (
  "train_split=train[:60%]",
  "valid_split=train[60%:]",
  "batch_size=48",
  "epochs=2",
  "augmentations=('crop_flip',)",
  "logit_regularisation=(False,)",
  "learning_rates=(0.8,0.1)",
  "checkpoint.every_steps=20",
)
GRID = (
  "train_split=train[:60%]",
  "valid_split=train[60%:]",
  "batch_size=16",
  "epochs=(2.0,)",
  "learning_rates=(0.1,0.4,0.05)",
)
# In the order in which a suite does them, so that its kills come one by one.
PARTS = {
  "knn": KNN,
  "transfer_cifar10": TRANSFER,
  "linear": LINEAR,
  "linear_released": (),  # its folder is a run's
  "semi_supervised_10": GRID,
}
# What is there of a part when the two processes are killed.
KILLS = {
  "transfer_cifar10": "features-valid.npz",
  "linear": "crop_flip/checkpoints/[0-9]*[0-9]",
  "semi_supervised_10": "scores-*lr0.4*.json",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A suite of one process in "one", and in "two" of two with two devices each.

  Those two are killed in the midst of each part that keeps something, and
  started again. In one suite all parts have one encoder, and few starts.
  """
  folder = tmp_path_factory.mktemp("together")
  (folder / "narrow.py").write_text(NARROW)
  flags = [
    f"--suite=paper:{','.join(PARTS)}",
    f"--encoder=random:{folder}/narrow.py",
  ]
  for name, settings in PARTS.items():
    flags += [f"--config.{name}.{x}" for x in (*settings, "num_workers=0")]
  for name in ("one", "two"):
    of_a_run = folder / name / "linear_released"
    of_a_run.mkdir(parents=True)
    (of_a_run / run_files.MARKER).write_text("{}")
    (of_a_run / "config.json").write_text("{}")

  def start():
    return trainers.Trainers(
      folder / "two", flags, processes=2, devices=2, command="evaluate"
    )

  for part, kept in KILLS.items():
    begun = start()
    deadline = time.monotonic() + 600
    while not list((folder / "two" / part).glob(kept)):
      assert begun.running(), begun.logs()
      assert time.monotonic() < deadline, begun.logs()
      time.sleep(0.02)
    begun.kill()
    assert not (folder / "two" / part / "result.json").exists()
  start().finish()
  done = forks.byol("evaluate", *flags, f"--workdir={folder}/one")
  assert done.returncode == 0, done.stderr
  return folder


def both(folder, part):
  """What one process found of a part, and what two did."""
  one, two = (
    json.loads((folder / name / part / "result.json").read_text())
    for name in ("one", "two")
  )
  assert one["devices"] == "1 cpu device"
  assert two["devices"] == "4 cpu devices of 2 processes"
  return one, two


@pytest.mark.slow
def test_linear_evaluation_killed_in_two_processes_finds_what_one_finds(folder):
  (one,), (two,) = (result["rows"] for result in both(folder, "linear"))
  assert one["learning_rate"] == two["learning_rate"] == 0.8
  for name in ("top1", "top5"):  # rounding may turn one of 360
    assert one[name] == pytest.approx(two[name], abs=0.004)
  updates = [
    line["step"]
    for line in trainers.lines(folder / "two/linear/crop_flip/metrics.jsonl")
    if line["kind"] == "update"
  ]
  assert updates == sorted(set(updates))
  assert updates[-1] == 35


@pytest.mark.slow
def test_a_part_that_is_refused_ends_it_in_all_processes_and_no_other(folder):
  """Process 0 alone sees that the folder is a run's."""
  report = json.loads((folder / "two/report.json").read_text())
  refused = report["parts"].pop("linear_released")
  assert "the folder of a training" in refused["why_not"]
  done = {name for name, part in report["parts"].items() if part["result"]}
  assert done == PARTS.keys() - {"linear_released"}


@pytest.mark.slow
def test_the_neighbours_in_two_processes_are_those_in_one(folder):
  one, two = both(folder, "knn")
  assert two["counted"] == one["counted"] == {"bank": 1437, "queries": 360}
  for vote in ("majority", "weighted"):
    for k in ("1", "20"):  # rounding may turn one of 360
      found = one["top1"][vote][k], two["top1"][vote][k]
      assert found[0] == pytest.approx(found[1], abs=0.003)
      assert found[0] > 0.5


@pytest.mark.slow
def test_a_grid_in_two_processes_that_were_killed_is_that_of_one(folder):
  """Both forget the same trainings, in the same order."""
  (one,), (two,) = (
    result["rows"] for result in both(folder, "semi_supervised_10")
  )
  for name in ("learning_rate", "epochs", "examples"):
    assert one[name] == two[name]
  assert len(one["valid_top1"]) == 3
  for point, score in one["valid_top1"].items():  # rounding may turn 6 of 575
    assert two["valid_top1"][point] == pytest.approx(score, abs=0.0105)
  assert not list(folder.glob("two/semi_supervised_10/*/checkpoints"))


@pytest.mark.slow
def test_a_transfer_of_two_processes_that_were_killed_is_that_of_one(folder):
  one, two = both(folder, "transfer_cifar10")
  assert two["top1"] == pytest.approx(one["top1"], abs=0.003)
  assert len(one["path"]) == len(two["path"]) == 5
  for a, b in zip(one["path"], two["path"], strict=True):
    assert a["objective"] == pytest.approx(b["objective"], rel=1e-5)
    assert a["valid"] == pytest.approx(b["valid"], abs=0.004)  # 2 of 575
