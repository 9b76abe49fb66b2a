"""The one training loop: pre-training and every evaluation that trains use it.

Within an update things happen in this order, which must not change:
  1. the batch of update k meets the state after k updates;
  2. metrics are checked before the state they belong to is saved, so that no
     checkpoint holds the outcome of a non-finite update;
  3. evaluation sees the state that a checkpoint of the same label holds;
  4. a preemption is looked for before an update begins and between the batches
     of an evaluation, when `state` holds whole updates.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax

from byol_flax.runs import interrupts, metrics_log, progress_line
from byol_flax.runs.checkpoint import Checkpoints, Record
from byol_flax.runs.distributed import Processes
from byol_flax.runs.goodput import UPDATES
from byol_flax.runs.start_clock import StartClock
from byol_flax.runs.time_spent import Attempt, Sums
from input_pipeline.errors import (
  PreemptedError,
  RunError,
  StorageError,
  UsageError,
)

# Updates that may run on the devices while the next batch is awaited. More
# would hide from the clock what the loop waits for.
_IN_FLIGHT = 2

_TOO_LONG = 0.05  # if devices wait for data for more of the time, tell the user

StepFn = Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]


class NonFiniteError(RunError):
  """Something that a training makes became NaN or infinite.

  Attributes:
    fact: that alone, for who goes on without this training.
  """

  def __init__(self, fact: str, consequence: str) -> None:
    """Takes the sentence `fact`, and what it means where it ends all."""
    super().__init__(f"{fact} {consequence}")
    self.fact = fact


class WatchError(RunError):
  """What a run is watched for has come, and the run must not go on as it is."""


class HasStep(Protocol):
  """A state that counts its updates."""

  @property
  def step(self) -> Any:
    """Completed updates."""


@dataclasses.dataclass(frozen=True)
class Intervals:
  """After how many updates to report and to evaluate (0: only at the end)."""

  report: int
  evaluate: int

  def due(self, step: int, first: int, last: int) -> tuple[bool, bool]:
    """Whether to report and to evaluate after update `step`."""
    reporting = step in (first, last) or step % self.report == 0
    evaluating = step == last or bool(
      self.evaluate and step % self.evaluate == 0
    )
    return reporting, evaluating


@dataclasses.dataclass(frozen=True)
class Outlets:
  """Where a run reports and saves.

  Attributes:
    checkpoints: when and where to save.
    make_record: (step, seconds) -> what is saved beside the state.
    evaluate: state -> metrics.
    report: where metrics go.
    attempt: where the time goes.
    progress: the console line.
    processes: all that take part.
    starved: () -> what to do when the devices wait for data.
    headline: which metric the console shows of an update: a label and its name.
    diverged: sentences that help to find the cause of a metric that is not
      finite from the metrics before it.
    watch: is given the number and the metrics of every update, in order and
      before the state after it is saved; it may raise `WatchError`, which ends
      the run.
  """

  checkpoints: Checkpoints
  make_record: Callable[[int, float], Record]
  evaluate: Callable[[Any], dict[str, float]]
  report: metrics_log.MetricsLog
  attempt: Attempt
  progress: progress_line.Progress
  processes: Processes
  starved: Callable[[], str]
  headline: tuple[str, str]
  diverged: str
  watch: Callable[[int, dict[str, float]], None]

  def wait_for(self, step: int, batches: Iterator[Any]) -> Any:
    """The batch of update `step`, unless a process is preempted."""
    self.processes.at(step, "waiting for input")
    self.processes.check_preempted()
    with self.attempt.on("waiting"):
      batch = next(batches)
    self.processes.at(step, "updating")
    return batch

  def save(self, step: int, state: Any, seconds: float) -> None:
    """Starts to save the state after update `step`."""
    self.processes.at(step, "saving")
    # The lines first: a kill must not lose the line of an update that a
    # checkpoint holds.
    with self.attempt.on("saving"):
      self.report.flush()
      self.attempt.write()
      record = self.make_record(step, seconds)
      self.checkpoints.save(step, state, record)

  def finish(self) -> None:
    """Returns when the last save is committed; no update follows."""
    self.attempt.end()
    with self.attempt.on("saving"):
      self.checkpoints.wait()

  def take(
    self,
    pending: list[tuple[int, dict[str, jax.Array]]],
    before: dict[str, float],
  ) -> dict[str, float]:
    """Checks and watches updates, see `_checked`; returns the last metrics."""
    values = before
    for update, values in _checked(pending, before, self.diverged):
      self.watch(update, values)
    return values

  def hand_on_interrupts(self, unsaved: bool) -> None:
    """Lets the first Ctrl-C save what is `unsaved`, if the config wants it."""
    interrupts.hand_on(unsaved and self.checkpoints.save_on_interrupt)

  def run_evaluation(self, step: int, state: Any) -> None:
    """Evaluates the state after update `step` and reports."""
    self.processes.at(step, "evaluating")
    with self.attempt.on("evaluating"):
      self.report.scalars(step, self.evaluate(state), kind="evaluation")
      self.report.goodput(step, self.attempt.totals().metrics())
      self.report.flush()


def run(
  state: Any,
  step_fn: StepFn,
  batches: Iterator[Mapping[str, Any]],
  *,
  total_steps: int,
  batch_size: int,
  intervals: Intervals,
  outlets: Outlets,
  evaluate_first: bool,
  start_clock: StartClock,
  begun: float,
) -> tuple[Any, float]:
  """Trains until `total_steps` updates are done.

  Args:
    state: has `step`, the updates already done; donated to `step_fn`.
    step_fn: (state, batch) -> (state, metrics), jitted.
    batches: the batch of update `state.step` comes first.
    total_steps: where to stop.
    batch_size: images per update, for the rates reported.
    intervals: when to report and evaluate.
    outlets: what happens then.
    evaluate_first: whether to evaluate `state` before the first update.
    start_clock: its last stage ends with the first update.
    begun: when, by `time.monotonic()`, an unbroken run would have begun.

  Returns:
    The final state, and the seconds of training of all starts together.

  Raises:
    NonFiniteError: names step and metric; the last good checkpoint is kept.
    PreemptedError: after the last whole update was saved.
    UsageError, StorageError: of the input; a process that is alone saves first.
  """
  first = int(state.step) + 1
  done = 0  # the last update of this start
  window = outlets.attempt.sums()
  pending: list[tuple[int, dict[str, jax.Array]]] = []
  values: dict[str, float] = {}
  try:
    if evaluate_first:
      outlets.run_evaluation(first - 1, state)
    for step in range(first, total_steps + 1):
      batch = outlets.wait_for(step, batches)
      with outlets.attempt.update(step, compiles=step == first):
        state, metrics = step_fn(state, batch)
      done = step
      outlets.hand_on_interrupts(step < total_steps)
      pending.append((step, metrics))
      if len(pending) >= _IN_FLIGHT:
        jax.block_until_ready(pending[-_IN_FLIGHT][1])

      reporting, evaluating = intervals.due(step, first, total_steps)
      saving = step == total_steps or outlets.checkpoints.due(step, reporting)
      if reporting or saving or evaluating:
        values = outlets.take(pending, values)
        pending.clear()
      if reporting:
        # The window begins before reporting, so that its time counts.
        before, window = window, outlets.attempt.sums()
        first_times = start_clock.finish() if step == first else None
        times = first_times or _rates(before, window, batch_size)
        _tell(outlets, step, values, times, start_clock)
      if saving:
        outlets.save(step, state, time.monotonic() - begun)
      if evaluating:
        outlets.run_evaluation(step, state)
  except (PreemptedError, UsageError, StorageError) as error:
    # All processes are needed to save, but the input may fail on only one.
    if outlets.processes.alone or isinstance(error, PreemptedError):
      _keep(outlets, done, state, pending, values, time.monotonic() - begun)
    raise
  outlets.processes.at(total_steps, "ending")
  outlets.finish()
  return state, time.monotonic() - begun


def _keep(
  outlets: Outlets,
  done: int,
  state: Any,
  pending: list[tuple[int, dict[str, jax.Array]]],
  before: dict[str, float],
  seconds: float,
) -> None:
  """Saves the last whole update, `done`, unless there was none or it is bad.

  Where the watch would end the run, nothing is saved: the next start does these
  updates again and meets the same.
  """
  if done:
    try:
      outlets.take(pending, before)
    except WatchError as error:
      interrupts.nothing_saved()
      outlets.progress.note(f"Not saved: {error}")
    else:
      outlets.save(done, state, seconds)
  outlets.finish()


def _tell(
  outlets: Outlets,
  step: int,
  values: dict[str, float],
  times: dict[str, float],
  start_clock: StartClock,
) -> None:
  """Reports and shows the metrics of an update."""
  outlets.report.scalars(step, {**values, **times}, kind="update")
  progress, (label, metric) = outlets.progress, outlets.headline
  if "time/first_step_seconds" in times:
    progress.note(start_clock.sentence())
  else:
    progress.update(
      step,
      headline=(label, values[metric]),
      images_per_second=times["time/images_per_second"],
      data_wait_fraction=times["time/data_wait_fraction"],
    )
    if times["time/data_wait_fraction"] > _TOO_LONG:
      progress.note_once(
        "data wait",
        "The devices wait for data more than "
        f"{_TOO_LONG:.0%} of the time. {outlets.starved()}",
      )


def _rates(before: Sums, now: Sums, batch_size: int) -> dict[str, float]:
  """Metrics of the updates between two moments; pauses do not count."""

  def spent(*spans: str) -> float:
    return sum(now.seconds[span] - before.seconds[span] for span in spans)

  elapsed = spent(*UPDATES, "waiting")
  images = sum(now.images[kind] - before.images[kind] for kind in UPDATES)
  return {
    "time/step_ms": 1000 * elapsed * batch_size / images,
    "time/images_per_second": images / elapsed,
    "time/data_wait_fraction": spent("waiting") / elapsed,
  }


def _checked(
  pending: list[tuple[int, dict[str, jax.Array]]],
  before: dict[str, float],
  diverged: str,
) -> Iterator[tuple[int, dict[str, float]]]:
  """Fetches the metrics of updates and yields them, one update after another.

  Args:
    pending: updates and their metrics.
    before: metrics of the update before them; empty if this start has none.
    diverged: see `Outlets`.

  Raises:
    NonFiniteError: at the first metric that is not finite.
  """
  values = before
  # One transfer for all: one round trip, however many updates wait.
  for step, metrics in jax.device_get(pending):
    last, values = values, {name: float(x) for name, x in metrics.items()}
    for name, value in values.items():
      if not math.isfinite(value):
        raise NonFiniteError(
          f"{name} became {value} in update {step}.",
          "The run stops here and the last checkpoint before it is kept. "
          f"{_seen_before(step, last, diverged)}",
        )
    yield step, values


def _seen_before(step: int, last: dict[str, float], diverged: str) -> str:
  """What the metrics `last` say of the cause of a failure in update `step`."""
  if not last:
    return (
      "This start made no update before it. The learning rate may be too high "
      "for this batch size."
    )
  told = ", ".join(f"{name} {value:.3g}" for name, value in last.items())
  return f"Update {step - 1} had {told}. {diverged}"
