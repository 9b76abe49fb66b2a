"""Signals to runs of several processes: what is saved, and how they end."""

import shutil
import signal
import time

import numpy as np
import pytest

from tests import soak, trainers
from tests.runs import test_older_records

# The same for all, because the number of updates is compiled into the step.
UPDATES = soak.SHORT


def start(workdir, *flags, processes=2, devices=1, **options):
  return trainers.Trainers(
    workdir,
    [*soak.short(UPDATES), *flags],
    processes=processes,
    devices=devices,
    **options,
  )


@pytest.mark.slow
def test_sigterm_at_any_moment_saves_the_last_update_everywhere(tmp_path):
  """A save is left to the test of a run that goes on elsewhere."""
  workdir, other = tmp_path / "run", tmp_path / "other"
  # Every start has the flag that only the first one needs.
  start(
    other, "--config.epochs=0.05", "--config.warmup_epochs=0", processes=1
  ).finish()
  begins_with = f"--init-encoder={other}"

  def terminate(victim, place, workers=0, late=()):
    run = start(
      workdir,
      "--config.evaluation.every_steps=8",
      "--config.evaluation.batch_size=90",
      f"--config.loader.num_workers={workers}",
      begins_with,
      places={victim: place, **dict.fromkeys(late, "late")},
    )
    codes = run.wait(300)
    assert codes == [75, 75], f"{place}: {codes}\n{run.logs()}"
    for index in (0, 1):
      assert "Traceback" not in run.log(index), run.logs()
      assert "preempted" in run.log(index)
      assert "the same command resumes" in run.log(index)
    saved = max(trainers.saves(workdir), default=0)
    assert saved == trainers.last_update(workdir), place
    assert not list(workdir.glob("checkpoints/*tmp*")), place
    return saved

  # Before the first update there is nothing to save, and nothing is.
  # Process 0 comes when the other would be gone, had it not waited.
  assert terminate(1, "start", late=[0]) == 0
  assert not list((workdir / "checkpoints").glob("*"))
  compiled = terminate(0, "1:updating")
  assert compiled >= 1
  first_batch = terminate(1, f"{compiled + 1}:waiting for input", workers=1)
  assert compiled <= first_batch <= compiled + 3
  evaluating = terminate(1, f"{(first_batch // 8 + 1) * 8}:evaluating")
  assert (first_batch // 8 + 1) * 8 <= evaluating < UPDATES

  # The run ends, with every evaluation, as if nothing had been.
  last = start(
    workdir, "--config.evaluation.every_steps=8", begins_with, processes=1
  )
  last.finish()
  assert f"This run began with {begins_with}@2" in last.log(0)
  starts = trainers.lines(workdir / "starts.jsonl")
  assert {each["init"]["step"] for each in starts} == {2}
  assert trainers.saves(workdir)[-1] == UPDATES
  seen = trainers.views_seen(workdir, UPDATES)
  assert sorted(seen) == list(range(1, UPDATES + 1))
  evaluated = [
    line["step"]
    for line in trainers.lines(workdir / "metrics.jsonl")
    if "knn/test/top1" in line
  ]
  assert evaluated == [8, 16, UPDATES]
  assert not trainers.orphans()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_brings_the_others_down(tmp_path, victim):
  # More updates than can be done before the kill, on any machine.
  run = trainers.Trainers(
    tmp_path / "run",
    [*soak.short(100_000), "--config.loader.num_workers=0"],
    processes=2,
    devices=1,
  )
  deadline = time.monotonic() + 300
  while trainers.last_update(tmp_path / "run") < 3:
    assert run.running(), run.logs()
    assert time.monotonic() < deadline
    time.sleep(0.05)
  run.signal(victim, signal.SIGKILL)
  codes = run.wait(300)
  assert codes[victim] == -signal.SIGKILL
  other = 1 - victim
  assert codes[other] not in (0, 2, 75)
  assert f"byol: process {victim} of 2" in run.log(other)
  assert "was lost, at update" in run.log(other)


@pytest.mark.slow
def test_a_run_goes_on_elsewhere_as_if_it_had_stayed(tmp_path):
  """To more processes and devices, and to fewer; in float64, see soak.py."""
  stayed, moved = tmp_path / "stayed", tmp_path / "moved"

  def go_on(workdir, processes, devices, **options):
    return start(
      workdir,
      "--config.dtype=float64",
      "--config.checkpoint.keep_last=10",
      "--config.evaluation.every_steps=0",
      "--config.loader.num_workers=0",
      processes=processes,
      devices=devices,
      float64=True,
      **options,
    )

  go_on(stayed, 1, 2).finish()
  shutil.copytree(stayed, moved)
  first, *later = trainers.saves(moved)
  for step in later:
    shutil.rmtree(moved / "checkpoints" / str(step))
  (moved / "view_hashes-0.jsonl").unlink()
  preempted = go_on(moved, 2, 2, places={0: "10:saved"})
  assert preempted.wait(300) == [75, 75], preempted.logs()
  assert "Traceback" not in preempted.logs()
  assert "preempted" in preempted.log(0)
  assert not list(moved.glob("checkpoints/*tmp*"))
  assert max(trainers.saves(moved)) == trainers.last_update(moved)
  assert 10 <= trainers.last_update(moved) < UPDATES
  # What is restored has the digest of what was saved, or it is refused.
  go_on(moved, 1, 1).finish()

  state, reference = (trainers.state_of(x, UPDATES) for x in (moved, stayed))
  assert sum(value.dtype == np.float64 for value in reference.values()) > 80
  assert not any(value.dtype == np.float32 for value in reference.values())
  difference = trainers.largest_difference(state, reference)
  print(f"largest relative difference {difference:.2g}")
  assert difference < soak.BOUND
  seen = trainers.views_seen(moved, UPDATES)
  assert sorted(seen) == list(range(first + 1, UPDATES + 1))
  assert seen.items() < trainers.views_seen(stayed, UPDATES).items()


@pytest.mark.slow
def test_a_checkpoint_that_one_process_cannot_read_is_kept(tmp_path):
  test_older_records.unpack("format1_digits.tar.xz", tmp_path)
  workdir = tmp_path / "digits"
  before = trainers.saves(workdir)
  run = trainers.Trainers(
    workdir,
    [*test_older_records.FLAGS, *test_older_records.DIGITS],
    processes=2,
    devices=1,
    places={1: "unreadable"},
  )
  codes = run.wait(300)
  assert codes == [1, 1], run.logs()
  for index in (0, 1):
    assert "can be read by some processes and not by others" in run.log(index)
  assert trainers.saves(workdir) == before
  assert not (workdir / "checkpoints-damaged").exists()
