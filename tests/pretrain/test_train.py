"""Whole runs on digits, through the command: results, resume, refusals."""

import json
import pathlib
import re
import shutil

import pytest
from etils import epath
from tensorboard.backend.event_processing import event_accumulator

from byol_flax.runs import run_files
from tests import trainers
from tests.forks import byol

# In one process, which makes the run that they look at once.
pytestmark = pytest.mark.xdist_group("train")

ROOT = pathlib.Path(__file__).parents[2]
SMALL = (
  f"--config={ROOT}/configs/byol_digits.py",
  "--config.batch_size=64",
  "--config.epochs=3",  # 67 updates
  "--config.warmup_epochs=0.5",
  "--config.model.encoder.architecture=basic:1:4:8",  # is traced fastest
  "--config.model.encoder.width=4",
  "--config.augment.size=8",
  "--config.evaluation.every_steps=50",
  "--config.checkpoint.every_steps=25",
  "--config.loader.num_workers=0",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A finished small run: its workdir and what it printed."""
  workdir = tmp_path_factory.mktemp("run") / "digits"
  result = byol("train", *SMALL, f"--workdir={workdir}")
  assert result.returncode == 0, result.stderr
  return workdir, result.stderr


def metrics(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_a_run_leaves_everything_it_promises(run):
  workdir, console = run
  names = {path.name for path in workdir.iterdir()}
  assert names == {
    "checkpoints",
    "config.json",
    "curves.png",
    "metrics.jsonl",
    "parameters.txt",
    "run.lock",
    "byol-run.json",
    "starts.jsonl",
    "tensorboard",
    "views.png",
  }
  steps = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())
  assert steps == [25, 50, 67]
  assert "step 67/67 100%" in console
  assert "Done: 67 updates" in console
  assert "input of evaluations: 1,797 images by " in console
  assert len(console.splitlines()) < 12
  config = json.loads((workdir / "config.json").read_text())
  assert config["batch_size"] == 64
  assert "encoder" in (workdir / "parameters.txt").read_text()


@pytest.mark.slow
def test_metrics_have_the_names_of_the_vocabulary(run):
  workdir, _ = run
  lines = metrics(workdir)
  trained = [line for line in lines if "train/byol_loss" in line]
  assert set(trained[-1]) == {
    "step", "wall_time", "kind", "train/byol_loss", "train/classifier_loss",
    "train/top1", "train/top5", "train/target_decay", "train/learning_rate",
    "train/grad_norm", "train/projection_std", "train/effective_rank",
    "train/online_target_distance", "train/alignment", "train/uniformity",
    "train/predictor_gain", "time/step_ms", "time/images_per_second",
    "time/data_wait_fraction",
  }  # fmt: skip
  evaluated = [line for line in lines if "knn/test/top1" in line]
  assert [line["step"] for line in evaluated] == [50, 67]
  assert {"classifier/test/top1", "classifier/test/top5"} <= set(evaluated[0])
  # 360 test images, each counted once.
  for name in ("knn/test/top1", "classifier/test/top1"):
    hits = evaluated[0][name] * 360
    assert abs(hits - round(hits)) < 1e-3
  events = event_accumulator.EventAccumulator(
    str(workdir / "tensorboard"), size_guidance={"tensors": 0}
  )
  events.Reload()
  assert set(trained[-1]) - {"step", "wall_time", "kind"} <= set(
    events.Tags()["tensors"]
  )
  assert any("views" in tag for tag in events.Tags()["tensors"])
  # All that a run leaves is in the list of what may be written over and moved.
  listed = {path.name for path in run_files.written(epath.Path(workdir))}
  there = {path.name for path in workdir.iterdir()}
  assert there == listed | {run_files.MARKER, run_files.LOCK}


@pytest.mark.slow
def test_what_an_evaluation_keeps_does_not_go_into_the_run(run):
  workdir, _ = run
  before = {path.name for path in workdir.iterdir()}
  result = byol(
    "evaluate", f"--config={ROOT}/configs/linear.py", f"--workdir={workdir}"
  )
  assert result.returncode == 2, result.stderr
  assert f"Give --encoder={workdir} and a --workdir of its" in result.stderr
  assert {path.name for path in workdir.iterdir()} == before


@pytest.mark.slow
def test_it_learns_and_does_not_collapse(run):
  lines = [x for x in metrics(run[0]) if "train/byol_loss" in x]
  first, last = lines[0], lines[-1]
  assert 3 < first["train/byol_loss"] < 5  # unrelated vectors: about 4
  assert last["train/byol_loss"] < 0.6 * first["train/byol_loss"]
  assert last["train/projection_std"] > 0.03  # 1/sqrt(64) = 0.125 is even
  assert last["train/effective_rank"] > 1.2
  evaluated = [x for x in metrics(run[0]) if "knn/test/top1" in x]
  assert evaluated[-1]["knn/test/top1"] > 0.5  # chance is 0.1


@pytest.mark.slow
def test_a_complete_run_is_left_alone(run):
  workdir, _ = run
  before = (workdir / "metrics.jsonl").read_bytes()
  result = byol("train", *SMALL, f"--workdir={workdir}")
  assert result.returncode == 0
  assert "This run is complete" in result.stderr
  assert (workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_contradicting_config_is_refused(run):
  workdir, _ = run
  result = byol(
    "train", *SMALL, f"--workdir={workdir}", "--config.model.encoder.width=1"
  )
  assert result.returncode == 2
  assert "model.encoder.width: 4.0 there, 1.0 now" in result.stderr
  assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_evaluate_prints_the_table_and_writes_the_summary(run):
  workdir, _ = run
  result = byol(
    "evaluate",
    f"--config={ROOT}/configs/evaluate.py:baselines=1",
    "--config.few_label.draws=2",
    f"--workdir={workdir}",
  )
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  for split, line in zip(("train", "test"), lines[:2], strict=True):
    assert line.startswith(f"input of {split}: ")
    assert line.endswith("to start than these take to read")
    assert "thread(s) of this process" in line
  rows = lines[2:]
  names = [row.split()[0] for row in rows[:4]]
  assert names == ["representation", "raw_pixels", "random_encoder", "byol"]
  summary = json.loads((workdir / "summary.json").read_text())
  encoder = summary["encoder"]
  assert encoder["step"] == 67
  assert encoder["training_seconds"] > 1
  assert len(encoder["code_version"]) >= 7
  by_name = {row["representation"]: row for row in summary["table"]}
  assert f"{by_name['byol']['knn']:.3f}" in rows[3]
  assert by_name["raw_pixels"]["knn"] > 0.97
  last = [x for x in metrics(workdir) if "knn/test/top1" in x][-1]
  # The same features and neighbours as at the end of training.
  assert abs(by_name["byol"]["knn"] - last["knn/test/top1"]) < 0.01


@pytest.mark.slow
def test_an_older_checkpoint_is_evaluated_in_a_folder_of_its_own(run, tmp_path):
  workdir, _ = run
  steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
  words = (
    "evaluate",
    f"--config={ROOT}/configs/few_label.py",
    "--config.few_label.draws=2",
    f"--encoder={workdir}@{steps[0]}",
    f"--workdir={tmp_path}/evaluation",
  )
  before = sorted(path.name for path in workdir.iterdir())
  result = byol(*words)
  assert result.returncode == 0, result.stderr
  written = json.loads((tmp_path / "evaluation/result.json").read_text())
  assert written["protocol"] == "few_label"
  assert written["encoder"]["step"] == steps[0]
  assert [row["representation"] for row in written["table"]] == ["byol"]
  assert sorted(path.name for path in workdir.iterdir()) == before
  result = byol(*words, "--config.neighbours=3")
  assert result.returncode == 2
  assert "config.neighbours: 5 there, 3 now" in result.stderr


@pytest.mark.slow
def test_a_run_that_diverges_says_so(tmp_path):
  result = byol(
    "train", *SMALL, f"--workdir={tmp_path}", "--config.base_learning_rate=1e30"
  )
  assert result.returncode == 1
  assert "Traceback" not in result.stderr
  assert re.search(
    r"byol: train/\w+ became (nan|inf) in update \d", result.stderr
  )
  assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
def test_restart_sets_the_old_run_aside(run, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(run[0], workdir)
  changes = ("--config.epochs=1", "--config.batch_size=128")
  result = byol("train", *SMALL, f"--workdir={workdir}", "--restart", *changes)
  assert result.returncode == 0, result.stderr
  (old,) = workdir.glob("replaced-*")
  assert (old / "checkpoints" / "67").is_dir()
  assert (workdir / "checkpoints" / "11").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(
  "place", ["augment.device=accelerator", "augment.cache=device"]
)
def test_views_made_on_the_devices_train_alike(run, tmp_path, place):
  workdir = tmp_path / "run"
  result = byol(
    "train",
    *SMALL,
    f"--workdir={workdir}",
    f"--config.{place}",
    "--config.epochs=1",
    "--config.evaluation.every_steps=0",
    "--config.report.view_hashes=true",
  )
  assert result.returncode == 0, result.stderr
  ours, theirs = metrics(workdir), metrics(run[0])
  # The same draws of the same images, rounded elsewhere; only the schedules
  # of the two runs differ, and not yet in the first update.
  for name in ("train/byol_loss", "train/grad_norm", "train/classifier_loss"):
    assert ours[0][name] == pytest.approx(theirs[0][name], rel=0.01)
  assert len({line["step"] for line in ours}) > 2
  last = ours[-1]["step"]
  assert sorted(trainers.views_seen(workdir, last)) == [*range(1, last + 1)]
