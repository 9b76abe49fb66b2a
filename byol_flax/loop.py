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

# Updates that may run on the devices while the next batch is awaited. More
# would hide from the clock what the loop waits for.
_IN_FLIGHT = 2

StepFn = Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]


class NonFiniteError(RuntimeError):
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


def run(
  state: Any,
  step_fn: StepFn,
  batches: Iterator[Mapping[str, Any]],
  *,
  total_steps: int,
  batch_size: int,
  intervals: Intervals,
  checkpoints: Checkpoints,
  make_record: Callable[[int, float], Record],
  evaluate: Callable[[Any], dict[str, float]],
  report: report_lib.Report,
  progress: report_lib.Progress,
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
    checkpoints: when and where to save.
    make_record: (step, seconds) -> what is saved beside the state.
    evaluate: state -> metrics.
    report: where metrics go.
    progress: the console line.
    seconds_before: training time of earlier starts of this run.

  Returns:
    The final state, and the seconds of training of all starts together.

  Raises:
    NonFiniteError: names step and metric; the last good checkpoint is kept.
  """
  start = int(state.step)
  begun = time.monotonic()
  window = _Window()
  pending: list[tuple[int, dict[str, jax.Array]]] = []

  def seconds() -> float:
    return seconds_before + time.monotonic() - begun

  for step in range(start + 1, total_steps + 1):
    with window.clock("waiting"):
      batch = next(batches)
    state, metrics = step_fn(state, batch)
    pending.append((step, metrics))
    if len(pending) >= _IN_FLIGHT:
      jax.block_until_ready(pending[-_IN_FLIGHT][1])
    window.count += 1

    last = step == total_steps
    first = step == start + 1
    reporting = first or last or step % intervals.report == 0
    saving = last or checkpoints.due(step)
    evaluating = last or (
      intervals.evaluate > 0 and step % intervals.evaluate == 0
    )
    if reporting or saving or evaluating:
      values = _checked(pending)
      pending.clear()
    if reporting:
      rates = window.rates(batch_size)
      if first:
        # Mostly compilation, which would spoil the rate.
        rates = {"time/first_step_seconds": time.monotonic() - begun}
      report.scalars(step, {**values, **rates})
      progress.update(
        step,
        loss=values["train/byol_loss"],
        images_per_second=rates.get("time/images_per_second", 0.0),
        data_wait_fraction=rates.get("time/data_wait_fraction", 0.0),
      )
      window = _Window()
    with window.clock("paused"):
      if saving:
        checkpoints.save(step, state, make_record(step, seconds()))
      if evaluating:
        report.scalars(step, evaluate(state))
  checkpoints.wait()
  return state, seconds()


class _Window:
  """Clock over the updates since the last report."""

  def __init__(self) -> None:
    self.count = 0
    self._begun = time.monotonic()
    self._seconds = {"waiting": 0.0, "paused": 0.0}

  @contextlib.contextmanager
  def clock(self, what: str) -> Iterator[None]:
    """Times a wait for data ("waiting") or a pause in training ("paused")."""
    begun = time.monotonic()
    yield
    self._seconds[what] += time.monotonic() - begun

  def rates(self, batch_size: int) -> dict[str, float]:
    """Metrics of the window so far; pauses do not count."""
    elapsed = time.monotonic() - self._begun - self._seconds["paused"]
    return {
      "time/step_ms": 1000 * elapsed / self.count,
      "time/images_per_second": batch_size * self.count / elapsed,
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
