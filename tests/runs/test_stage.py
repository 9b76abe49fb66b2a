"""What the other processes hear of one that stages."""

import dataclasses
import threading
import types
import zlib

import pytest

from byol_flax.runs import distributed, stage
from byol_flax.runs.peers import watch
from input_pipeline import copying
from tests import prepare_cifar10
from tests.input_pipeline.test_staging import config_of
from tests.input_pipeline.test_tfds_sources import CIFAR10, NAMES
from tests.runs.test_peers import LONG, PATIENT, Clock, Run, wait_until


class Looks(distributed.Processes):
  """Processes that count how often they were asked for a preemption."""

  count = 0

  def check_preempted(self):
    super().check_preempted()
    self.count += 1


@pytest.mark.slow
def test_a_host_whose_storage_hangs_is_named(tmp_path, monkeypatch):
  gate = threading.Semaphore(0)

  def checksum(*given):  # of a range, when the test lets it come
    gate.acquire()
    return zlib.crc32(*given)

  clock = Clock()
  monkeypatch.setattr(watch, "time", clock)
  monkeypatch.setattr(copying, "zlib", types.SimpleNamespace(crc32=checksum))
  monkeypatch.setattr(copying, "_RANGE", 100)
  monkeypatch.setattr(stage, "_LOOK_SECONDS", 0.05)
  deadlines = dataclasses.replace(PATIENT, silence_seconds=10 * LONG)
  run = Run(2, deadlines)
  channel, looks = run.peers[1], Looks(run.peers[1])
  prepare_cifar10.write_cifar10(str(tmp_path / "tfds"), CIFAR10, NAMES)
  config = config_of(str(tmp_path / "tfds"), tmp_path / "stage")
  staging_images = threading.Thread(
    target=stage.stage, args=(config, looks, lambda line: None)
  )
  staging_images.start()
  try:
    for parts in (1, 2):
      gate.release()
      wait_until(lambda: channel._at[2] >= parts)  # noqa: B023
      seen = looks.count
      wait_until(lambda: looks.count >= seen + 5)  # noqa: B023
      assert channel._at[2] == parts
    run.wait_for_positions({1: (0, 2)})
    run.peers[0].at(0, "setting up after staging")
    clock.ahead += LONG + 1
    run.wait_for([0, 1])
    assert "Behind: process 1 of 2" in run.ended[0][0]
    assert run.ended[0][0].endswith("at update 0, staging.")
  finally:
    gate.release(10**6)
    staging_images.join(LONG)
  assert watch.ACTIVITIES[channel._at[1]] == "setting up after staging"
