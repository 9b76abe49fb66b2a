"""Runs that older versions of the code began are resumed and evaluated."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile

import pytest

from tests import forks, trainers

RECORDS = pathlib.Path(__file__).parents[1] / "records"

# How both runs in `records` were started, but for what is below.
FLAGS = (
  "--config=configs/byol_digits.py",
  "--config.model.encoder.width=0.25",
  "--config.model.projector.hidden_size=16",
  "--config.model.projector.output_size=8",
  "--config.model.predictor.hidden_size=16",
  "--config.model.predictor.output_size=8",
  "--config.report.every_steps=2",
  "--config.checkpoint.every_steps=3",
  "--config.loader.num_workers=0",
  "--config.report.view_hashes=true",
)
DIGITS = (
  "--config.epochs=0.8",
  "--config.warmup_epochs=0.2",
  "--config.evaluation.every_steps=5",
)

# What commit 939a972 made of `format1_digits` when it resumed it itself.
LOSSES = {
  8: 1.7489709854125977,
  12: 1.5343656539916992,
  17: 1.5495067834854126,
}
VIEWS = {7: "447e1d8c1721cd08", 16: "fb4cdb46467a10bd", 17: "77086da0917b0fc8"}
FIVE_LABELS, NEAREST = 0.4261, 0.575


FOLDER = (
  "--config.data.split=train",
  "--config.epochs=20",
  "--config.warmup_epochs=1",
  "--config.batch_size=8",
  "--config.base_learning_rate=1.0",
  "--config.evaluation.every_steps=10",
  "--config.evaluation.batch_size=8",
)


def byol(*arguments, code=0):
  done = forks.byol(*arguments)
  assert done.returncode == code, done.stderr
  return done


def byol_without_tensorflow(*arguments):
  done = subprocess.run(
    [sys.executable, "-m", "tests.without", "tensorflow", *arguments],
    cwd=trainers.ROOT,
    env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return done


def unpack(name, folder):
  with tarfile.open(RECORDS / name) as archive:
    archive.extractall(folder, filter="data")


@pytest.mark.slow
def test_a_run_of_format_1_is_resumed_and_evaluated(tmp_path):
  """On a machine without TensorFlow, which only TensorBoard's files need."""
  unpack("format1_digits.tar.xz", tmp_path)
  workdir = tmp_path / "digits"
  before = sorted((workdir / "tensorboard").glob("*"))
  command = ("train", f"--workdir={workdir}", *FLAGS, *DIGITS)
  told = byol_without_tensorflow(*command).stderr
  assert told.count("TensorBoard's files are left out, because tensorflow") == 1
  assert sorted((workdir / "tensorboard").glob("*")) == before

  updates = {
    line["step"]: line["train/byol_loss"]
    for line in trainers.lines(workdir / "metrics.jsonl")
    if "train/byol_loss" in line
  }
  assert sorted(updates) == [1, 2, 4, 6, 7, 8, 10, 12, 14, 16, 17]
  assert {s: updates[s] for s in LOSSES} == pytest.approx(LOSSES, rel=1e-3)
  seen = trainers.views_seen(workdir, 17)
  assert sorted(seen) == list(range(1, 18))
  assert {s: f"{seen[s]:016x}" for s in VIEWS} == VIEWS

  command = ("evaluate", "--config=configs/evaluate.py")
  byol_without_tensorflow(*command, f"--workdir={workdir}")
  (row,) = json.loads((workdir / "summary.json").read_text())["table"]
  # One example of 360 is 0.003; rounding may turn some.
  assert row["linear"]["5"][0] == pytest.approx(FIVE_LABELS, abs=0.02)
  assert row["knn"] == pytest.approx(NEAREST, abs=0.02)


@pytest.mark.slow
def test_images_are_moved_damaged_and_mended_under_a_run(tmp_path):
  unpack("format1_folder.tar.xz", tmp_path)
  workdir, images = tmp_path / "folder", tmp_path / "images"
  damaged = [images / "train/a/1.png", images / "train/b/4.png"]
  whole = [file.read_bytes() for file in damaged]
  for file in damaged:
    file.write_bytes(bytes(file.stat().st_size))
  flags = (*FLAGS, *FOLDER, f"--config.data.name=folder:{images}")

  command = ("train", f"--workdir={workdir}", *flags)
  told = byol(*command, code=2).stderr
  assert f"{images} are those of folder:/data/format-1" in told
  assert re.search(r"byol: [12] of 12 images could not be read.* Mend", told)
  last = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
  seen = trainers.views_seen(workdir, last)
  assert sorted(seen) == list(range(1, last + 1))

  # What was said to do: one is mended, to another size, and one removed.
  damaged[0].write_bytes(whole[0] + b"\0")
  damaged[1].unlink()
  allowed = "--config.loader.max_unreadable_share=0.1"
  told = byol(*command, allowed).stderr
  assert f"update {last} of 30" in told
  assert "Done: 30 updates" in told
  assert "1 image(s) could not be read" in told
