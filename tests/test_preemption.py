"""Signals to runs of several processes: what is saved, and how they end."""

import shutil
import signal
import time

import numpy as np
import pytest

from tests import soak, trainers

UPDATES = 60
# Of float32 sums over a batch in another order, relative to the largest number
# of an array, after one update.
ORDER_OF_SUMS = 1e-4


def start(workdir, places=None, processes=2, devices=1):
  flags = [
    *soak.flags(UPDATES),
    "--config.evaluation.every_steps=8",
    "--config.evaluation.batch_size=90",
  ]
  return trainers.Trainers(
    workdir, flags, processes=processes, devices=devices, places=places
  )


@pytest.mark.slow
def test_sigterm_at_any_moment_saves_the_last_update_everywhere(tmp_path):
  workdir = tmp_path / "run"

  def terminate(victim, place):
    run = start(workdir, {victim: place})
    codes = run.wait(120)
    assert codes == [75, 75], f"{place}: {codes}\n{run.logs()}"
    for index in (0, 1):
      assert "Traceback" not in run.log(index), run.logs()
      assert "preempted; the same command resumes" in run.log(index)
    saved = max(trainers.saves(workdir), default=0)
    assert saved == trainers.last_update(workdir), place
    assert not list(workdir.glob("checkpoints/*tmp*")), place
    return saved

  # Before the first update there is nothing to save, and nothing is.
  assert terminate(1, "start") == 0
  assert not list((workdir / "checkpoints").glob("*"))
  compiled = terminate(0, "1:updating")
  assert compiled >= 1
  first_batch = terminate(1, f"{compiled + 1}:waiting for input")
  assert compiled <= first_batch <= compiled + 3
  stepping = terminate(1, f"{first_batch + 3}:updating")
  assert stepping >= first_batch + 3
  saving = terminate(0, f"{(stepping // 5 + 2) * 5}:saved")
  assert saving >= (stepping // 5 + 2) * 5
  evaluating = terminate(1, f"{(saving // 8 + 1) * 8}:evaluating")
  assert evaluating >= (saving // 8 + 1) * 8
  idle = terminate(0, f"{evaluating + 3}:waiting for input")
  assert evaluating + 2 <= idle <= evaluating + 6

  # The run ends on one process, as if nothing had been.
  start(workdir, processes=1, devices=2).finish()
  assert trainers.saves(workdir)[-1] == UPDATES
  seen = trainers.views_seen(workdir, UPDATES)
  assert sorted(seen) == list(range(1, UPDATES + 1))
  assert not trainers.orphans()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_brings_the_others_down(tmp_path, victim):
  run = start(tmp_path / "run")
  deadline = time.monotonic() + 120
  while trainers.last_update(tmp_path / "run") < 3:
    assert run.running(), run.logs()
    assert time.monotonic() < deadline
    time.sleep(0.1)
  run.signal(victim, signal.SIGKILL)
  codes = run.wait(60)
  assert codes[victim] == -signal.SIGKILL
  other = 1 - victim
  assert codes[other] not in (0, 2, 75)
  assert f"byol: process {victim} of 2" in run.log(other)
  assert "was lost, at update" in run.log(other)


@pytest.mark.slow
def test_soak(tmp_path):
  result = soak.soak(
    tmp_path, events=3, updates=30, topologies=("2x2", "1x4"), seed=3
  )
  assert result["equal view digests"] == 30


@pytest.mark.slow
def test_a_soak_on_one_device_ends_with_equal_bits(tmp_path):
  result = soak.soak(
    tmp_path, events=2, updates=30, topologies=("1x1",), seed=1
  )
  assert result["largest difference of a loss"] == 0


@pytest.mark.slow
def test_a_run_goes_on_elsewhere_up_to_the_order_of_sums(tmp_path):
  """2 x 2 devices up to update 10, then one update on other topologies."""

  def go_on(workdir, processes, devices):
    flags = [
      *soak.flags(12),
      "--config.checkpoint.every_steps=1",
      "--config.checkpoint.keep_last=20",
      "--config.evaluation.every_steps=0",
    ]
    trainers.Trainers(
      workdir, flags, processes=processes, devices=devices
    ).finish()
    assert trainers.saves(workdir)[-3:] == [10, 11, 12]
    return trainers.state_of(workdir, 11)

  here = tmp_path / "2x2"
  reference = go_on(here, 2, 2)
  for processes, devices in ((1, 4), (1, 1)):
    there = tmp_path / f"{processes}x{devices}"
    shutil.copytree(here, there)
    for step in (11, 12):
      shutil.rmtree(there / "checkpoints" / str(step))
    # What is restored has the digest of what was saved, or it is refused.
    state = go_on(there, processes, devices)
    assert state.keys() == reference.keys()
    differences = [
      np.abs(state[path] - value).max() / max(np.abs(value).max(), 1e-6)
      for path, value in reference.items()
      if value.dtype == np.float32
    ]
    print(f"{there.name}: largest relative difference {max(differences):.2g}")
    assert len(differences) > 100
    assert max(differences) < ORDER_OF_SUMS
    assert trainers.views_seen(there, 12) == trainers.views_seen(here, 12)
