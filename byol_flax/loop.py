"""The one training loop: pre-training and every evaluation that trains use it.

Order within an update, which must not change:
  1. the batch of update k meets the state after k updates;
  2. metrics are checked before the state they belong to is saved, so that no
     checkpoint holds the outcome of a non-finite update;
  3. evaluation sees the state that a checkpoint of the same label holds.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax

from byol_flax import report as report_lib
from byol_flax.checkpoint import Checkpoints, Record
from input_pipeline.errors import RunError

# Updates that may run on the devices while the next batch is awaited. More
# would hide from the clock what the loop waits for.
_IN_FLIGHT = 2

StepFn = Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]


class NonFiniteError(RunError):
  """A metric became NaN or infinite."""


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


@dataclasses.dataclass(frozen=True)
class Outlets:
  """Where a run leaves what it has to say and to keep.

  Attributes:
    checkpoints: when and where to save.
    make_record: (step, seconds) -> what is saved beside the state.
    evaluate: state -> metrics.
    report: where metrics go.
    progress: the console line.
  """

  checkpoints: Checkpoints
  make_record: Callable[[int, float], Record]
  evaluate: Callable[[Any], dict[str, float]]
  report: report_lib.Report
  progress: report_lib.Progress


def run(
  state: Any,
  step_fn: StepFn,
  batches: Iterator[Mapping[str, Any]],
  *,
  total_steps: int,
  batch_size: int,
  intervals: Intervals,
  outlets: Outlets,
  seconds_before: float,
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
    seconds_before: training time of earlier starts of this run.

  Returns:
    The final state, and the seconds of training of all starts together.

  Raises:
    NonFiniteError: names step and metric; the last good checkpoint is kept.
  """
  first = int(state.step) + 1
  begun = time.monotonic() - seconds_before
  window = _Window()
  pending: list[tuple[int, dict[str, jax.Array]]] = []

  for step in range(first, total_steps + 1):
    with window.clock("waiting"):
      batch = next(batches)
    state, metrics = step_fn(state, batch)
    window.updates += 1
    pending.append((step, metrics))
    if len(pending) >= _IN_FLIGHT:
      jax.block_until_ready(pending[-_IN_FLIGHT][1])

    last = step == total_steps
    reporting = step == first or last or step % intervals.report == 0
    saving = last or outlets.checkpoints.due(step)
    evaluating = last or (intervals.evaluate and step % intervals.evaluate == 0)
    if reporting or saving or evaluating:
      values = _checked(pending)
      pending.clear()
    if reporting:
      # The first update is mostly compilation and would spoil the rates.
      times = window.first() if step == first else window.rates(batch_size)
      outlets.report.scalars(step, {**values, **times})
      _show(outlets.progress, step, values, times)
      window = _Window()
    with window.clock("paused"):
      if saving:
        record = outlets.make_record(step, time.monotonic() - begun)
        outlets.checkpoints.save(step, state, record)
      if evaluating:
        outlets.report.scalars(step, outlets.evaluate(state))
  outlets.checkpoints.wait()
  return state, time.monotonic() - begun


def _show(
  progress: report_lib.Progress,
  step: int,
  values: dict[str, float],
  times: dict[str, float],
) -> None:
  if "time/first_step_seconds" in times:
    seconds = times["time/first_step_seconds"]
    progress.note(f"first update done after {seconds:.1f} s")
  else:
    progress.update(
      step,
      loss=values["train/byol_loss"],
      images_per_second=times["time/images_per_second"],
      data_wait_fraction=times["time/data_wait_fraction"],
    )


class _Window:
  """Clock over the updates since the last report."""

  def __init__(self) -> None:
    self.updates = 0
    self._begun = time.monotonic()
    self._seconds = {"waiting": 0.0, "paused": 0.0}

  @contextlib.contextmanager
  def clock(self, what: str) -> Iterator[None]:
    """Times a wait for data ("waiting") or a pause in training ("paused")."""
    begun = time.monotonic()
    yield
    self._seconds[what] += time.monotonic() - begun

  def first(self) -> dict[str, float]:
    """Metric of a window that holds the first update only."""
    return {"time/first_step_seconds": time.monotonic() - self._begun}

  def rates(self, batch_size: int) -> dict[str, float]:
    """Metrics of the window so far; pauses do not count."""
    elapsed = time.monotonic() - self._begun - self._seconds["paused"]
    return {
      "time/step_ms": 1000 * elapsed / self.updates,
      "time/images_per_second": batch_size * self.updates / elapsed,
      "time/data_wait_fraction": self._seconds["waiting"] / elapsed,
    }


def _checked(
  pending: list[tuple[int, dict[str, jax.Array]]],
) -> dict[str, float]:
  """Fetches the metrics of updates; returns those of the last.

  Raises:
    NonFiniteError: at the first metric that is not finite.
  """
  values: dict[str, float] = {}
  for step, metrics in pending:
    values = {name: float(x) for name, x in jax.device_get(metrics).items()}
    for name, value in values.items():
      if not math.isfinite(value):
        raise NonFiniteError(
          f"{name} became {value} in update {step}. The run stops here and the "
          "last checkpoint before it is kept. Usual causes: a learning rate "
          "that is too high for this batch size, or damaged images."
        )
  return values
