"""A run of two workers and its mishaps, through the launcher, for real.

The cloud is tests/fake_cloud/google; what it runs on its workers is the
controller's own commands and the trainer, two processes of two devices each.
"""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from tests import conftest, trainers
from tests.fake_cloud import warm
from tests.fake_cloud.rig import ROOT, START, Rig, git

UPDATES = 72
FLAGS = (
  "--config.batch_size=64",
  "--config.epochs=3.21",  # 72 updates of 64 of the 1,437 digits
  "--config.warmup_epochs=1",
  "--config.model.encoder.architecture=basic:1:8:8",
  "--config.model.encoder.width=1",
  "--config.augment.size=8",
  # Nothing else takes time: an input worker imports as much as a trainer.
  "--config.augment.cache=device",
  "--config.evaluation.split=test[:64]",
  "--config.evaluation.bank_split=train[:64]",
  "--config.evaluation.batch_size=64",
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


def prepare(rig, **plan):
  """Two workers on which JAX really runs; returns how a run is asked for.

  Args:
    rig: the launcher, with a `warm.server` at "warm" of its folder.
    **plan: more of the plan of the cloud.
  """
  port = trainers.free_ports()
  machine = {
    **{name: os.environ[name] for name in conftest.FOR_COMPILATION},
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "2",
    "BYOL_COORDINATOR": f"127.0.0.1:{port}",
    "BYOL_PROCESS_COUNT": "2",
    "BYOL_TEND_SECONDS": "0.5",
    "BYOL_GRACE_SECONDS": "2",
    "FAKE_WARM": str(rig.folder / "warm"),
  }
  rig.plan(
    workers=2,
    python=str(warm.PYTHON),
    environment=[{**machine, "BYOL_PROCESS_INDEX": str(i)} for i in range(2)],
    states=[],
    **plan,
  )
  workdir = ("--workdir", str(rig.folder / "run"))
  return ("byol_digits", "--slice=v3-16", *workdir, *FLAGS, "--yes")


@pytest.mark.slow
def test_four_mishaps_of_one_run_end_and_so_does_the_bill(rig):
  """Each comes when the run has saved, and before it can be done.

  Five starts of Python would take a minute, so they are forks.
  """
  with warm.server(rig.folder / "warm"):
    have_four_mishaps(rig)


def have_four_mishaps(rig):
  workdir = rig.folder / "run"
  saved = workdir / "checkpoints"
  rig.environment.update(
    BYOL_POLL_SECONDS="0.2",
    BYOL_LOOK_SECONDS="5",
    BYOL_SILENT_SECONDS="5",
    BYOL_STRAGGLER_SECONDS="5",
  )
  errors = rig.folder / "errors"
  with errors.open("w") as file:
    controller = rig.start(
      *prepare(rig, preempt=[str(saved / "8")]), stderr=file
    )

  # The slice is preempted: both workers save when they are told to, and say so.
  wait_for(lambda: rig.verbs.count("start") == 2, errors)
  assert "byol-digits is PREEMPTED; making it anew" in errors.read_text()
  anew = ["create", *START, "delete", "create", *START]
  assert rig.verbs == anew
  (first,) = rig.folder.glob("node-before-*")
  exits = [path.read_text() for path in sorted(first.glob("*/byol/run/exit"))]
  assert exits == ["75", "75"]
  at_preemption = newest(saved)
  assert 8 <= at_preemption < UPDATES

  # A machine that stands still: its processes, and what ssh would start.
  wait_for(lambda: newest(saved) > at_preemption, errors)
  log = (rig.worker(0) / "byol/run/log").read_text()
  resumed_at = int(re.search(rf"update (\d+) of {UPDATES}", log).group(1))
  assert resumed_at == at_preemption
  frozen = rig.worker(1)
  (frozen / "frozen").touch()
  for path in (frozen / "unit/pid", frozen / "tend.pid"):
    os.killpg(int(path.read_text()), signal.SIGSTOP)
  wait_for(lambda: rig.verbs.count("start") == 3, errors)
  assert rig.verbs == [*anew, "delete", "create", *START]

  # The kernel kills a process of the unit for want of memory.
  before = newest(saved)
  wait_for(lambda: newest(saved) > before, errors)
  (rig.worker(1) / "oom").touch()
  os.kill(int((rig.worker(1) / "unit/pid").read_text()), signal.SIGKILL)
  wait_for(lambda: rig.verbs.count("start") == 4, errors)
  (rig.worker(1) / "oom").unlink()
  assert "the memory of its machine was full" in errors.read_text()

  # The laptop is gone; worker 0 deletes the slice when the run is done.
  log = rig.worker(0) / "byol/run/log"
  wait_for(lambda: log.exists() and "update" in log.read_text(), errors)
  controller.kill()
  wait_for((rig.folder / "deletions").exists, errors)
  assert newest(saved) == UPDATES
  columns = "state,acceleratorType,health,networkEndpoints.len()"
  describe = ["gcloud", "compute", "tpus", "tpu-vm", "describe", "byol-digits"]
  describe += ["--project=p", "--zone=europe-west4-a"]
  describe += [f"--format=value({columns})"]
  gone = subprocess.run(
    describe, env=rig.environment, capture_output=True, text=True, check=False
  )
  assert "NOT_FOUND" in gone.stderr
  assert rig.cloud["node"] is None

  # Every update was done, and every attempt left its logs.
  steps = {
    entry["step"]
    for entry in trainers.lines(workdir / "metrics.jsonl")
    if "train/byol_loss" in entry
  }
  assert steps == set(range(1, UPDATES + 1))
  names = sorted(path.name for path in (workdir / "logs").glob("*/*"))
  assert names.count("worker-0.log") == names.count("worker-1.log") == 4


def newest(saved):
  """Label of the newest whole checkpoint, 0 without one."""
  names = (path.name for path in saved.glob("*"))
  return max((int(name) for name in names if name.isdigit()), default=0)


def wait_for(found, errors):
  until = time.monotonic() + 300
  while not found():
    assert time.monotonic() < until, errors.read_text()
    time.sleep(0.05)
