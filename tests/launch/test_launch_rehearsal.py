"""A run of two workers that is preempted, through the launcher, for real.

The cloud is tests/fake_cloud/gcloud; what it runs on its workers is the
controller's own commands and the trainer, two processes of two devices each.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests import conftest, trainers
from tests.fake_cloud import warm
from tests.fake_cloud.rig import ROOT, START, Rig, git

UPDATES = 32
FLAGS = (
  "--config.batch_size=64",
  "--config.epochs=1.44",  # 32 updates of 64 of the 1,437 digits
  "--config.warmup_epochs=1",
  "--config.model.encoder.width=0.25",
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


def prepare(rig, python=sys.executable, socket="", **plan):
  """Two workers on which JAX really runs; returns how a run is asked for.

  Args:
    rig: the launcher.
    python: what stands for the interpreter on the workers.
    socket: of `warm.server`, for its stand-in.
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
    "FAKE_WARM": str(socket),
  }
  rig.plan(
    workers=2,
    python=str(python),
    environment=[{**machine, "BYOL_PROCESS_INDEX": str(i)} for i in range(2)],
    states=[],
    **plan,
  )
  workdir = ("--workdir", str(rig.folder / "run"))
  return ("byol_digits", "--slice=v3-16", *workdir, *FLAGS, "--yes")


@pytest.mark.slow
def test_a_preempted_run_is_resumed_on_a_new_slice_and_finishes(rig):
  workdir = rig.folder / "run"
  arguments = prepare(rig, preempt=[str(workdir / "checkpoints" / "8")])
  result = rig.run(
    *(*arguments, "--delete-when-done"),
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


@pytest.mark.slow
def test_a_freeze_a_full_memory_and_a_lost_controller_end_the_bill(rig):
  """Three mishaps of one run; the first two when it has just saved.

  There are so many updates that an attempt is never done before its mishap.
  The other test starts Python itself; six starts of it would take a minute.
  """
  with warm.server(rig.folder / "warm"):
    have_three_mishaps(rig)


def have_three_mishaps(rig):
  longer = ("--config.epochs=2.5",)
  saved = rig.folder / "run/checkpoints"
  rig.environment.update(
    BYOL_POLL_SECONDS="0.2",
    BYOL_LOOK_SECONDS="5",
    BYOL_SILENT_SECONDS="5",
    BYOL_STRAGGLER_SECONDS="5",
  )
  errors = rig.folder / "errors"
  with errors.open("w") as file:
    words = prepare(rig, warm.PYTHON, rig.folder / "warm")
    controller = rig.start(*words, *longer, stderr=file)

  # A machine that stands still: its processes, and what ssh would start.
  wait_for(lambda: newest(saved) > 0, errors)
  frozen = rig.worker(1)
  (frozen / "frozen").touch()
  for path in (frozen / "unit/pid", frozen / "tend.pid"):
    os.killpg(int(path.read_text()), signal.SIGSTOP)
  wait_for(lambda: rig.verbs.count("start") == 2, errors)
  assert rig.verbs == ["create", *START, "delete", "create", *START]

  # The kernel kills a process of the unit for want of memory.
  before = newest(saved)
  wait_for(lambda: newest(saved) > before, errors)
  (rig.worker(1) / "oom").touch()
  os.kill(int((rig.worker(1) / "unit/pid").read_text()), signal.SIGKILL)
  wait_for(lambda: rig.verbs.count("start") == 3, errors)
  (rig.worker(1) / "oom").unlink()
  assert "the memory of its machine was full" in errors.read_text()

  # The laptop is gone; worker 0 deletes the slice when the run is done.
  log = rig.worker(0) / "byol/run/log"
  wait_for(lambda: log.exists() and "update" in log.read_text(), errors)
  controller.kill()
  wait_for((rig.folder / "deletions").exists, errors)
  assert newest(saved) == 56  # 2.5 times 1,437 images in batches of 64
  columns = "state,acceleratorType,health,networkEndpoints.len()"
  describe = ["gcloud", "compute", "tpus", "tpu-vm", "describe", "byol-digits"]
  describe += ["--project=p", "--zone=europe-west4-a"]
  describe += [f"--format=value({columns})"]
  gone = subprocess.run(
    describe, env=rig.environment, capture_output=True, text=True, check=False
  )
  assert "NOT_FOUND" in gone.stderr
  assert rig.cloud["node"] is None
  # Every attempt left its logs.
  names = sorted(path.name for path in (rig.folder / "run/logs").glob("*/*"))
  assert names.count("worker-0.log") == names.count("worker-1.log") == 3


def newest(saved):
  """Label of the newest whole checkpoint, 0 without one."""
  names = (path.name for path in saved.glob("*"))
  return max((int(name) for name in names if name.isdigit()), default=0)


def wait_for(found, errors):
  until = time.monotonic() + 300
  while not found():
    assert time.monotonic() < until, errors.read_text()
    time.sleep(0.05)
