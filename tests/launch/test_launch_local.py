"""A rehearsal of several processes on one machine, by launch/local.sh."""

import re
import subprocess
import sys
import time

import pytest

from tests.fake_cloud.rig import FAKE, PATIENCE, ROOT, option, whole_lines

pytest_plugins = ("tests.fake_cloud.fixtures",)
# Each test starts dozens of programs.
pytestmark = pytest.mark.slow


def local(rig, *arguments, folder=None, **environment):
  """Starts launch/local.sh in a folder with the stand-in of the trainer."""
  return subprocess.Popen(
    [str(ROOT / "launch/local.sh"), *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=folder,
    env={
      **rig.environment,
      "BYOL_PYTHON": str(FAKE / "trainer"),
      **environment,
    },
  )


def trainer_calls(rig):
  return whole_lines(rig.folder / "trainer.jsonl")


def test_a_local_rehearsal_starts_every_process_alike(rig):
  process = local(
    rig, "byol_digits", "--processes", "3", "--devices=4", "--workdir=/a b"
  )
  output, errors = process.communicate(timeout=PATIENCE)
  assert process.returncode == 0, errors
  assert sorted(output.splitlines()) == [
    f"{i}: a line of the trainer" for i in range(3)
  ]
  calls = sorted(trainer_calls(rig), key=lambda call: call["argv"][-1])
  assert [call["argv"].pop() for call in calls] == [
    f"--process-index={i}" for i in range(3)
  ]
  assert calls[0]["argv"] == calls[1]["argv"] == calls[2]["argv"]
  assert "--workdir=/a b" in calls[0]["argv"]
  assert "--process-count=3" in calls[0]["argv"]
  assert re.fullmatch(
    r"127.0.0.1:\d+", option(calls[0]["argv"], "--coordinator")
  )
  assert {call["environment"]["JAX_NUM_CPU_DEVICES"] for call in calls} == {"4"}


@pytest.mark.parametrize(
  ("given", "expected"),
  [("~/a b", "{home}/a b"), ("run/", "{here}/run"), ("gs://b/~", "gs://b/~")],
)
def test_a_local_rehearsal_reads_paths_where_its_user_stands(
  rig, tmp_path, given, expected
):
  here = tmp_path / "here"
  for name in ("configs/byol_digits.py", "byol_flax.py"):
    (here / name).parent.mkdir(parents=True, exist_ok=True)
    (here / name).write_text("raise ValueError")
  arguments = (f"--workdir={given}", "--config.data.name=folder:photos")
  process = local(rig, "byol_digits", *arguments, folder=here)
  _, errors = process.communicate(timeout=PATIENCE)
  assert process.returncode == 0, errors
  call = trainer_calls(rig)[0]
  workdir = expected.format(home=rig.folder, here=here)
  assert option(call["argv"], "--workdir") == workdir
  cache = call["environment"]["JAX_COMPILATION_CACHE_DIR"]
  assert cache == f"{workdir}/compilation_cache"
  # The trainer makes it absolute from its own folder.
  assert arguments[1] in call["argv"]
  assert call["cwd"] == str(here)
  config = option(call["argv"], "--config")
  assert config == f"{ROOT}/configs/byol_digits.py"
  # It is our program all the same.
  found = subprocess.run(
    [sys.executable, "-c", "import byol_flax; print(byol_flax.__file__)"],
    cwd=here,
    env=call["environment"],
    capture_output=True,
    text=True,
    check=True,
  )
  assert found.stdout.strip() == f"{ROOT}/byol_flax/__init__.py"


def test_a_local_rehearsal_passes_a_sigterm_on_and_its_outcome_back(rig):
  process = local(rig, "byol_digits", TRAINER="wait")
  until = time.monotonic() + PATIENCE
  while len(trainer_calls(rig)) < 2:
    assert time.monotonic() < until
    time.sleep(0.05)
  process.terminate()
  _, errors = process.communicate(timeout=PATIENCE)
  assert process.returncode == 75, errors
  assert "ended with 75 75" in errors


def test_a_signal_while_a_local_rehearsal_starts_reaches_every_process(rig):
  # The first one sends it before others are started, because they are so many.
  (rig.folder / "bin").mkdir()
  shell = rig.folder / "bin/bash"
  shell.write_text(
    '#!/bin/bash\n[[ "$*" == *--process-index=0* ]] && kill -TERM "$PPID"\n'
    'exec /bin/bash "$@"\n'
  )
  shell.chmod(0o755)
  path = f"{shell.parent}:{rig.environment['PATH']}"
  run = local(rig, "byol_digits", "--processes=40", PATH=path, TRAINER="wait")
  try:
    _, errors = run.communicate(timeout=60)
  finally:
    subprocess.run(["pkill", "-KILL", "-P", str(run.pid)], check=False)
  assert run.returncode == 75, errors
  codes = errors.split("ended with ")[1].split(";")[0].split()
  assert set(codes) <= {"75", "143"}  # it may come before they wait for it
  assert len(codes) == 40
