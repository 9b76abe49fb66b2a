"""Which processes make a run, and what they do when there is only one."""

import os
import subprocess
import sys

import pytest

from byol_flax.runs import distributed
from input_pipeline.errors import UsageError
from tests import soak, trainers


def test_the_cluster_given_is_taken():
  cluster = distributed.find_cluster("10.0.0.1:8476", 4, 3)
  assert cluster == distributed.Cluster("10.0.0.1:8476", 3, 4)


def test_a_process_outside_of_any_cluster_is_alone():
  cluster = distributed.find_cluster(None, None, None)
  assert (cluster.index, cluster.count) == (0, 1)
  assert cluster.coordinator.startswith("127.0.0.1:")


@pytest.mark.parametrize(
  ("given", "words"),
  [
    (("host:1", None, 0), "belong together"),
    ((None, 2, None), "belong together"),
    (("host", 2, 0), "HOST:PORT of process 0 is expected"),
    ((":8476", 2, 0), "HOST:PORT of process 0 is expected"),
    (("host:65535", 2, 0), "the next one free"),
    (("host:1", 2, 2), "numbered from 0"),
    (("host:1", 0, 0), "numbered from 0"),
    (("host:1", 2, -1), "numbered from 0"),
  ],
)
def test_mistakes_in_the_cluster_are_told(given, words):
  with pytest.raises(UsageError, match=words):
    distributed.find_cluster(*given)


def test_alone_nothing_waits():
  alone = distributed.Processes()
  assert alone.any(True) is True
  assert alone.any(False) is False
  alone.wait("here")
  alone.at(1, "updating")
  alone.part_done()
  alone.check_preempted()


def printed(code):
  """What `code` prints in a process of its own."""
  run = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=False,
    cwd=trainers.ROOT,
    env=os.environ,
  )
  assert run.returncode == 0, run.stderr
  return run.stdout


EARLY = """
import signal, time
from byol_flax.runs import distributed
from byol_flax.runs.peers import watch
from input_pipeline.errors import PreemptedError
deadlines = watch.Deadlines(*3 * [300.0])
cluster = distributed.find_cluster(None, None, None)
sigterms = [signal.SIGTERM]
try:
  with distributed.start(
    cluster, deadlines, identity="x", sigterms=sigterms
  ) as processes:
    until = time.monotonic() + 300
    while time.monotonic() < until:
      processes.check_preempted()
      time.sleep(0.1)
except PreemptedError:
  print("preempted")
"""


@pytest.mark.slow
def test_a_signal_that_came_before_jax_listens_is_handed_on():
  assert printed(EARLY) == "preempted\n"


DEVICES = """
import sys, types
from byol_flax import sharding
kinds = [types.SimpleNamespace(id=i, process_index=p) for i, p in
         enumerate([0, 0, 1, 1, 0, 0, 1, 1])]
class Mesh:
  def __init__(self, devices, names): self.devices = devices
sharding.Mesh = Mesh
print([d.id for d in sharding.make_mesh(kinds).devices.flat])
"""


@pytest.mark.slow
def test_devices_of_a_process_stand_side_by_side():
  # As on a v3-16, whose hosts own 2 x 2 chips of a 2 x 4 torus.
  assert printed(DEVICES).strip() == "[0, 1, 4, 5, 2, 3, 6, 7]"


@pytest.mark.slow
def test_a_mistake_ends_all_processes_with_status_2(tmp_path):
  # The batch cannot be divided, which only the devices together can tell.
  flags = [*soak.short(), "--config.batch_size=30"]
  run = trainers.Trainers(tmp_path / "run", flags, processes=2, devices=2)
  assert run.wait(300) == [2, 2], run.logs()
  for index in (0, 1):
    assert "batch_size 30 cannot be cut" in run.log(index)
    assert "Traceback" not in run.log(index)


@pytest.mark.slow
def test_a_process_that_never_comes_is_named(tmp_path):
  flags = [*soak.short(), "--config.deadlines.start_seconds=20"]
  run = trainers.Trainers(tmp_path / "run", flags, processes=3, devices=1)
  run.processes[2].kill()
  codes = run.wait(300)
  assert codes[:2] == [1, 1], run.logs()
  for index in (0, 1):
    assert "Process 2 of 3 did not come within 20 s" in run.log(index)
    assert "Traceback" not in run.log(index)
