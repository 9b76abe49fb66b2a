"""Runs on the workers of a fake slice: what tests of worker.sh share."""

import subprocess
import time

from tests.fake_cloud.rig import CONTROLLER, FAKE, PATIENCE


def start_workers(rig, *environment):
  """Starts a run on one worker per environment; they run the stand-in."""
  rig.plan(
    workers=len(environment),
    python=str(FAKE / "trainer"),
    environment=[*environment],
    states=[],
  )
  rig.run("up", *CONTROLLER)
  return rig.worker(0) / "byol/current/launch/worker.sh"


def set_environment(rig, index, **variables):
  """Changes the environment in which a worker is called from now on."""
  rig.change(
    lambda cloud: cloud["plan"]["environment"][index].update(variables)
  )


def on_worker(rig, index, line, status=0):
  """What gcloud would bring back from one worker."""
  command = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "byol-digits"]
  command += ["--project=a", "--zone=europe-west4-a", f"--worker={index}"]
  result = subprocess.run(
    [*command, f"--command=bash byol/current/launch/worker.sh {line}"],
    capture_output=True,
    text=True,
    env=rig.environment,
    check=False,
  )
  assert result.returncode == status, result.stderr
  return result.stdout + result.stderr


def start_line(rig, run_id, delete="never", seconds="-"):
  """What starts a run whose workdir is a folder of the test."""
  resource = "projects/p/locations/z/nodes/n"
  words = f"start {run_id} 20260102-030405 {delete} {seconds} {resource}"
  return f"{words} --workdir={rig.folder}/run"


def setup_line(workdir="-", delete="never", seconds="-"):
  """What sets a worker up."""
  return f"setup {workdir} {delete} {seconds} projects/p/locations/z/nodes/n"


def state_of(rig, index):
  """(status, code) of one worker."""
  words = on_worker(rig, index, "state").split("byol-state")[1].split()
  return words[1], words[2]


def wait_for_state(rig, index, status):
  until = time.monotonic() + PATIENCE
  while state_of(rig, index)[0] != status:
    assert time.monotonic() < until, state_of(rig, index)
    time.sleep(0.05)
  return state_of(rig, index)[1]


def wait_for_trainer(rig):
  """Until the stand-in of the last start has written its line."""
  until = time.monotonic() + PATIENCE
  path, unit = rig.worker(0) / "trainer.jsonl", rig.worker(0) / "unit/pid"
  while not (
    path.exists()
    and unit.exists()
    and unit.read_text()
    and [str(x["pid"]) for x in rig.trainer_calls(0)][-1:] == [unit.read_text()]
  ):
    assert time.monotonic() < until
    time.sleep(0.05)


def wait_for_deletion(rig):
  """Until a worker has deleted the slice; returns what it asked for."""
  path = rig.folder / "deletions"
  wait_until(lambda: path.exists() and path.read_text().endswith("\n"))
  return path.read_text()


def text_of(path):
  """What a file says that may not be there yet."""
  return path.read_text() if path.exists() else ""


def wait_until(found):
  until = time.monotonic() + PATIENCE
  while not found():
    assert time.monotonic() < until
    time.sleep(0.05)
