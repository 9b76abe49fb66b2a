"""launch/tending.sh: the slice ends its own payment when nobody else does."""

import concurrent.futures
import fcntl
import os
import signal
import time

import pytest

from tests.fake_cloud.rig import CONTROLLER
from tests.fake_cloud.workers import (
  on_worker,
  setup_line,
  start_line,
  start_workers,
  wait_for_deletion,
  wait_for_state,
  wait_until,
)

pytest_plugins = ("tests.fake_cloud.fixtures",)
# Each test starts dozens of programs.
pytestmark = pytest.mark.slow

TEND = {"BYOL_TEND_SECONDS": "0.1", "BYOL_GRACE_SECONDS": "1"}


def told(rig, attempt):
  """Why the slice has deleted itself, once it has."""
  wait_for_deletion(rig)
  return (rig.folder / f"run/logs/{attempt}/deleted.txt").read_text().strip()


def tend_of(rig, index):
  """What a worker was told: workdir, attempt, delete, deadline, resource."""
  text = (rig.worker(index) / "byol/run/tend").read_text()
  return text.removesuffix("\0").split("\0")


def test_a_run_that_left_no_record_has_ended(rig):
  start_workers(rig, {"TRAINER": "exit 1", **TEND})
  (rig.worker(0) / "byol/run/exit.part").mkdir()  # so that none is written
  on_worker(rig, 0, start_line(rig, "id1", "always"))
  assert told(rig, "20260102-030405") == "ended"


def test_a_controller_that_comes_back_may_change_its_mind(rig):
  start_workers(rig, {"TRAINER": "wait", **TEND})
  on_worker(rig, 0, start_line(rig, "id1", "never"))
  before = tend_of(rig, 0)
  on_worker(rig, 0, "retend done 1")
  after = tend_of(rig, 0)
  assert after[:3] == [*before[:2], "done"]
  assert after[4] == before[4]
  assert told(rig, "20260102-030405") == "hours"


def test_worker_1_stands_in_for_worker_0(rig):
  start_workers(rig, *[{"TRAINER": "wait", **TEND}] * 3)
  on_worker(rig, "all", start_line(rig, "id1", "done"))
  os.killpg(int((rig.worker(0) / "tend.pid").read_text()), signal.SIGSTOP)
  begun = time.monotonic()
  for index in (1, 2):
    on_worker(rig, index, "retend done 2")
  assert told(rig, "20260102-030405") == "hours"
  # The hours and three times the grace, less what `date +%s` cuts off.
  assert time.monotonic() - begun > 4
  text = (rig.folder / "deletions").read_text()
  assert text.count("nodes/n\n") == 1


@pytest.mark.parametrize(
  ("delete", "seconds", "why"),
  [
    ("done", "1", "hours"),
    ("always", "-", "ended"),
    ("done", "-", "ended"),
  ],
)
def test_a_slice_whose_controller_goes_in_the_set_up_ends(
  rig, delete, seconds, why
):
  start_workers(rig, TEND)
  on_worker(rig, 0, setup_line(rig.folder / "run", delete, seconds))
  assert told(rig, "set-up") == why


@pytest.mark.parametrize("delete", ["never", "hours"])
def test_a_slice_that_waits_for_a_run_stays(rig, delete):
  start_workers(rig, TEND)
  on_worker(rig, 0, setup_line(rig.folder / "run", delete))
  time.sleep(3)
  assert not (rig.folder / "deletions").exists()


def test_a_set_up_that_takes_long_is_no_idleness(rig):
  start_workers(rig, TEND)
  path = rig.worker(0) / "byol/setup.lock"
  line = setup_line(rig.folder / "run", "always")
  with (
    concurrent.futures.ThreadPoolExecutor() as pool,
    path.open("w") as lock,  # given up first
  ):
    fcntl.flock(lock, fcntl.LOCK_EX)
    ours = pool.submit(on_worker, rig, 0, line)
    wait_until(lambda: tend_of(rig, 0)[2] == "always")
    time.sleep(3)
    assert not (rig.folder / "deletions").exists()
    assert not ours.done()
  assert "failed" not in ours.result()
  assert told(rig, "set-up") == "ended"


def test_what_up_makes_stays_for_its_hours(rig):
  start_workers(rig, {})
  resource = "projects/my-project/locations/europe-west4-a/nodes/byol-digits"
  assert tend_of(rig, 0) == [
    "gs://bucket/run",
    "set-up",
    "never",
    "-",
    resource,
  ]
  flags = ("--delete=always", "--max-hours=2")
  rig.run("up", *CONTROLLER, *flags)
  workdir, attempt, delete, deadline, _ = tend_of(rig, 0)
  assert (workdir, attempt, delete) == ("gs://bucket/run", "set-up", "hours")
  assert 7000 < int(deadline) - time.time() <= 7200


def test_a_set_up_between_two_attempts_keeps_the_log_of_the_first(rig):
  start_workers(rig, {})
  on_worker(rig, 0, start_line(rig, "id1"))
  wait_for_state(rig, 0, "exited")
  on_worker(rig, 0, setup_line("gs://bucket/other", "always", "600"))
  workdir, attempt, delete, deadline, _ = tend_of(rig, 0)
  assert workdir == f"{rig.folder}/run"
  assert (attempt, delete) == ("20260102-030405", "always")
  assert 0 < int(deadline) - time.time() <= 600
