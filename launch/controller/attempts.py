"""What is to be done about what was seen. Nothing here does anything."""

from __future__ import annotations

import dataclasses

from launch.controller.outcome import outcome_of
from launch.controller.workers import Run

# How the watch of an attempt can end, besides with the outcome of its workers.
LOST = "lost"  # the slice is dead
DELETED = "deleted"  # the slice is gone, and not by us
HELD = "held"  # somebody stopped the slice
STOPPED = "stopped"  # somebody stopped the run


@dataclasses.dataclass(frozen=True)
class Look:
  """What was found at one moment of an attempt.

  Attributes:
    slice: state of the slice, see `states.of_node`.
    run: what its workers said; None when they were not asked.
    now: of a clock that only goes forward, seconds.
  """

  slice: str
  run: Run | None
  now: float


@dataclasses.dataclass(frozen=True)
class Watch:
  """What is remembered from look to look.

  Attributes:
    mixed_since: when some workers had ended for the first time; None when all
      were running since.
  """

  mixed_since: float | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What is to be done after a look.

  Attributes:
    event: how the attempt has ended: an outcome or a word of this module; ""
      while it goes on.
    halt: whether the workers that hang are to be ended.
  """

  event: str = ""
  halt: bool = False


def judge(
  watch: Watch, look: Look, straggler_seconds: float
) -> tuple[Watch, Verdict]:
  """Decides after one look, and says what to remember.

  Args:
    watch: from the look before.
    look: what was found.
    straggler_seconds: how long the last workers may take to end.
  """
  ended = {"dead": LOST, "absent": DELETED, "held": HELD}.get(look.slice, "")
  if ended or look.run is None:
    return watch, Verdict(ended)
  status = look.run.status
  if status == "exited":
    return watch, Verdict(outcome_of(look.run.codes))
  if status == "stopped":
    return watch, Verdict(STOPPED)
  if status == "absent":
    return watch, Verdict("75")  # a worker that was replaced has no run
  if status == "running":
    return Watch(), Verdict()
  if status == "unreachable":
    return watch, Verdict()
  # Some have ended and some have not. That is usual for a moment; if it lasts,
  # they hang.
  since = look.now if watch.mixed_since is None else watch.mixed_since
  return Watch(since), Verdict(halt=look.now - since >= straggler_seconds)
