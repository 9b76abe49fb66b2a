"""The loop: order, intervals, non-finite metrics."""

import io
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from byol_flax.runs import (
  checkpoint,
  distributed,
  line_writer,
  loop,
  metrics_log,
  progress_line,
  start_clock,
  time_spent,
)
from input_pipeline.errors import (
  PreemptedError,
  RunError,
  StorageError,
  UsageError,
)


class Counter(struct.PyTreeNode):
  """A state of one number, the sum of all batches, and what takes room."""

  step: jax.Array
  total: jax.Array
  ballast: jax.Array


@jax.jit
def step_fn(state, batch):
  total = state.total + batch["x"]
  metrics = {"train/number": batch["x"], "train/total": total}
  return state.replace(step=state.step + 1, total=total), metrics


def numbers(start, bad=None, end=None):
  """Batch k holds k + 1; update `bad` gets a NaN; see `run` for `end`."""
  k = start
  while True:
    k += 1
    if end and k == end[0]:
      raise end[1]
    yield {"x": jnp.float32(np.nan if k == bad else k)}


class Slow(io.StringIO):
  """A terminal to which a line takes a tenth of a second."""

  def isatty(self):
    return True

  def write(self, text):
    time.sleep(0.1)
    return super().write(text)


def after(wait, batches):
  """Each of `batches`, once `wait` has returned."""
  for batch in batches:
    wait()
    yield batch


def attempt_at(workdir, start, clock):
  """An attempt that follows update `start`, in batches of 4."""
  return time_spent.Attempt(
    str(workdir),
    step=start,
    batch_size=4,
    about={},
    start_clock=clock,
    writes=True,
  )


def run(
  workdir,
  *,
  start=0,
  total=20,
  every_steps=7,
  bad=None,
  evaluate=5,
  end=None,
  ballast=1,
  overlap=False,
  stream=None,
  make_record=lambda step, seconds: {"step": step, "seconds": seconds},
  watch=lambda update, values: None,
):
  """Trains a counter.

  `end`: (update, what is raised where its batch is awaited). `ballast`: numbers
  that the state holds besides. `overlap`: updates go on while a save is written
  and do not wait until it is committed. `watch`: is given every update.
  """
  checkpoints = checkpoint.Checkpoints(
    str(workdir),
    every_steps=every_steps,
    every_minutes=1e6,
    keep_last=2,
    keep_every=1,
    processes=distributed.Processes(),
  )
  evaluated = []

  def evaluation(state):
    evaluated.append(int(state.step))
    return {"knn/test/top1": 0.5}

  stream = stream or io.StringIO()
  state = Counter(
    step=jnp.int32(start),
    total=jnp.float32(start * (start + 1) / 2),
    ballast=jnp.asarray(np.random.default_rng(0).random(ballast, np.float32)),
  )
  batches = numbers(start, bad, end)
  clock = start_clock.StartClock(time.monotonic() - 1000)
  with (
    metrics_log.MetricsLog(str(workdir), writes=True, resume_step=start) as out,
    attempt_at(workdir, start, clock) as attempt,
  ):
    try:
      state, seconds = loop.run(
        state,
        step_fn,
        batches if overlap else after(checkpoints.wait, batches),
        total_steps=total,
        batch_size=4,
        intervals=loop.Intervals(report=6, evaluate=evaluate),
        outlets=loop.Outlets(
          checkpoints=checkpoints,
          make_record=make_record,
          evaluate=evaluation,
          report=out,
          attempt=attempt,
          progress=progress_line.Progress(
            total_steps=total, batch_size=4, stream=stream
          ),
          processes=distributed.Processes(),
          starved=lambda: "More workers!",
          headline=("sum", "train/total"),
          diverged="Ask whoever made it.",
          watch=watch,
        ),
        begun=time.monotonic() - 100,
        evaluate_first=False,
        start_clock=clock,
      )
    finally:
      saved = checkpoints.steps()
      checkpoints.close()
  return state, seconds, saved, evaluated, stream.getvalue()


def lines(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_a_run_from_the_start(tmp_path):
  state, seconds, saved, evaluated, console = run(tmp_path)
  assert int(state.step) == 20
  assert float(state.total) == 210  # every batch once
  assert seconds > 100
  assert saved == [7, 14, 20]
  assert evaluated == [5, 10, 15, 20]
  trained = [line for line in lines(tmp_path) if "train/total" in line]
  assert [line["step"] for line in trained] == [1, 6, 12, 18, 20]
  for line in trained:  # the value after that update, not a mean
    k = line["step"]
    assert line["train/total"] == k * (k + 1) / 2
    assert ("time/step_ms" in line) == (k > 1)
  assert trained[0]["time/first_step_run_seconds"] > 1000
  assert "first update done after 100" in console
  for line in trained[1:]:
    assert 0 <= line["time/data_wait_fraction"] <= 1
    rate = line["time/images_per_second"]
    np.testing.assert_allclose(rate, 4 * 1000 / line["time/step_ms"])
  assert "step 20/20 100%" in console
  assert "| sum 210.000 |" in console
  kinds = {line["step"]: line["kind"] for line in lines(tmp_path)}
  assert kinds == {
    **dict.fromkeys((1, 6, 12, 18), "update"),
    **dict.fromkeys((5, 10, 15, 20), "evaluation"),  # 20 has both, in order
  }


def test_a_run_from_the_middle(tmp_path):
  state, _, saved, evaluated, _ = run(tmp_path, start=13)
  assert float(state.total) == 210
  assert saved == [14, 20]
  assert evaluated == [15, 20]


@pytest.mark.slow
def test_saves_that_a_slow_store_cannot_keep_up_with_are_put_off(tmp_path):
  state, _, saved, _, _ = run(
    tmp_path, total=80, every_steps=1, ballast=5_000_000, overlap=True
  )
  assert float(state.total) == 80 * 81 / 2
  assert saved[0] == 1
  assert saved[-1] == 80  # the last one waits
  assert 2 <= len(saved) <= 40


def test_lines_are_on_disk_before_what_they_tell_of_is_saved(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(line_writer, "_LOCAL", 1e6)
  found = {}

  def make_record(step, seconds):
    found[step] = [line["step"] for line in lines(tmp_path)]
    return {"step": step, "seconds": seconds}

  run(tmp_path, make_record=make_record)
  assert found == {
    7: [1, 5, 6],
    14: [1, 5, 6, 10, 12],
    20: [1, 5, 6, 10, 12, 15, 18, 20],
  }


def test_the_time_that_reporting_takes_is_counted(tmp_path):
  stream = Slow()
  run(tmp_path, total=18, stream=stream)
  windows = [line for line in lines(tmp_path) if "time/step_ms" in line]
  assert [line["step"] for line in windows] == [6, 12, 18]
  # Each of 5 or 6 updates, and of the line that the one before it wrote.
  for line, updates in zip(windows, (5, 6, 6), strict=True):
    assert line["time/step_ms"] * updates >= 100


def test_evaluation_only_at_the_end(tmp_path):
  assert run(tmp_path, evaluate=0)[3] == [20]


@pytest.mark.parametrize(("bad", "kept"), [(17, [7, 14]), (14, [7]), (3, [])])
def test_a_non_finite_metric_stops_before_it_is_saved(tmp_path, bad, kept):
  with pytest.raises(
    loop.NonFiniteError, match=f"train/number became nan in update {bad}"
  ) as error:
    run(tmp_path, bad=bad)
  seen = bad * (bad - 1) // 2
  assert (
    f"Update {bad - 1} had train/number {bad - 1}, train/total {seen}. Ask "
    in str(error.value)
  )
  reader = checkpoint.Checkpoints.reader(str(tmp_path))
  assert reader.steps() == kept
  reader.close()


@pytest.mark.parametrize("error", [UsageError, StorageError])
def test_an_input_that_ends_loses_no_update(tmp_path, error):
  with pytest.raises(error, match="of the input"):
    run(tmp_path, end=(11, error("of the input")))
  assert run(tmp_path, start=10)[2] == [7, 10, 14, 20]


def test_an_input_that_ends_after_a_nan_saves_none_of_it(tmp_path):
  with pytest.raises(loop.NonFiniteError, match="in update 10"):
    run(tmp_path, bad=10, end=(11, UsageError("of the input")))
  reader = checkpoint.Checkpoints.reader(str(tmp_path))
  assert reader.steps() == [7]
  reader.close()


def test_every_update_is_watched_before_it_is_saved(tmp_path):
  watched, at_save = [], {}

  def make_record(step, seconds):
    at_save[step] = watched[-1]
    return {"step": step, "seconds": seconds}

  run(
    tmp_path,
    make_record=make_record,
    watch=lambda update, values: watched.append(
      (update, values["train/total"])
    ),
  )
  assert watched == [(k, k * (k + 1) / 2) for k in range(1, 21)]
  assert {step: update for step, (update, _) in at_save.items()} == {
    step: step for step in (7, 14, 20)
  }


def test_a_preemption_saves_only_what_was_watched(tmp_path):
  watched, at_save = [], {}

  def make_record(step, seconds):
    at_save[step] = watched[-1]
    return {"step": step, "seconds": seconds}

  with pytest.raises(PreemptedError):
    run(
      tmp_path,
      end=(17, PreemptedError()),
      make_record=make_record,
      watch=lambda update, values: watched.append(update),
    )
  assert watched == [*range(1, 17)]
  assert at_save == {7: 7, 14: 14, 16: 16}


def test_a_save_that_fails_on_a_preemption_is_told(tmp_path):
  def make_record(step, seconds):
    if step == 16:
      raise StorageError("no answer")
    return {"step": step, "seconds": seconds}

  with pytest.raises(StorageError, match="no answer"):
    run(tmp_path, end=(17, PreemptedError()), make_record=make_record)


def test_a_preemption_saves_nothing_that_the_watch_refuses(tmp_path):
  def watch(update, values):
    if update == 16:
      raise loop.WatchError("seen enough")

  stream = io.StringIO()
  with pytest.raises(PreemptedError):
    run(tmp_path, end=(18, PreemptedError()), watch=watch, stream=stream)
  assert "Not saved: seen enough" in stream.getvalue()
  reader = checkpoint.Checkpoints.reader(str(tmp_path))
  assert reader.steps() == [7, 14]
  reader.close()


def test_what_the_watch_raises_ends_the_run_without_a_save(tmp_path):
  def watch(update, values):
    if update == 14:
      raise RunError("seen enough")

  with pytest.raises(RunError, match="seen enough"):
    run(tmp_path, watch=watch)
  reader = checkpoint.Checkpoints.reader(str(tmp_path))
  assert reader.steps() == [7]
  reader.close()
  # The line of an update that was reported before is not lost.
  assert lines(tmp_path)[-1]["step"] == 12
