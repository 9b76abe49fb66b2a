"""A run of two workers that is preempted, through the launcher, for real.

The cloud is tests/fake_cloud/gcloud; what it runs on its workers is the
controller's own commands and the trainer, two processes of two devices each.
"""

import json
import os
import re
import shutil
import sys

import pytest

from tests import conftest, trainers
from tests.fake_cloud.rig import ROOT, START, Rig, git

UPDATES = 32
FLAGS = (
  "--config.batch_size=64",
  "--config.epochs=1.44",  # 32 updates of 64 of the 1,437 digits
  "--config.warmup_epochs=1",
  "--config.model.encoder.width=0.25",
  "--config.augment.size=8",
  "--config.evaluation.every_steps=1000",
  "--config.report.every_steps=1",
  "--config.checkpoint.every_steps=8",
)


@pytest.fixture
def rig(tmp_path):
  """The launcher on a clone of everything that a slice gets."""
  clone = tmp_path / "clone"
  clone.mkdir()
  ignored = shutil.ignore_patterns("__pycache__")
  for name in ("byol_flax", "configs", "input_pipeline", "launch"):
    shutil.copytree(ROOT / name, clone / name, ignore=ignored)
  for name in (".gitignore", "pyproject.toml", "constraints.txt"):
    shutil.copy(ROOT / name, clone)
  git(clone, "init", "--quiet")
  git(clone, "add", ".")
  git(clone, "commit", "--quiet", "--message=all")
  rig = Rig(clone, tmp_path)
  yield rig
  rig.close()


@pytest.mark.slow
def test_a_preempted_run_is_resumed_on_a_new_slice_and_finishes(rig):
  workdir = rig.folder / "run"
  port = trainers.free_ports()
  of_tests = {name: os.environ[name] for name in conftest.FOR_COMPILATION}
  machine = {
    **of_tests,
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "2",
    "BYOL_COORDINATOR": f"127.0.0.1:{port}",
    "BYOL_PROCESS_COUNT": "2",
  }
  rig.plan(
    workers=2,
    python=sys.executable,
    environment=[{**machine, "BYOL_PROCESS_INDEX": str(i)} for i in range(2)],
    preempt=[str(workdir / "checkpoints" / "8")],
    states=[],
  )
  arguments = ("byol_digits", "--slice=v3-16", "--workdir", str(workdir))
  result = rig.run(
    *(*arguments, *FLAGS, "--delete-when-done"),
    timeout=600,
    BYOL_POLL_SECONDS="0.2",
    BYOL_MAX_RESTARTS="0",
  )
  assert "byol-digits is PREEMPTED; making it anew" in result.stderr
  whole = ["create", *START, "delete"]
  assert rig.verbs == whole + whole

  # The first slice: both workers saved when they were told to, and said so.
  (first,) = rig.folder.glob("node-before-*")
  exits = [path.read_text() for path in sorted(first.glob("*/byol/run/exit"))]
  assert exits == ["75", "75"]

  # The second resumed where the first had saved, and all updates were done.
  log = (rig.worker(0) / "byol/run/log").read_text()
  resumed_at = int(re.search(r"update (\d+) of 32", log).group(1))
  assert 8 <= resumed_at < UPDATES
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  entries = [json.loads(line) for line in lines]
  steps = [entry["step"] for entry in entries if "train/byol_loss" in entry]
  assert sorted(set(steps)) == list(range(1, UPDATES + 1))
  assert (workdir / "checkpoints" / str(UPDATES)).is_dir()
