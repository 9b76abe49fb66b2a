"""What is to be done about what was seen. Nothing here does anything."""

from __future__ import annotations

import dataclasses

from launch.controller.outcome import outcome_of
from launch.controller.workers import Run

# How an attempt can end, besides with the outcome of its workers.
GONE = "gone"  # the slice is dead
STUCK = "stuck"  # the slice does not leave a state in which nothing runs
SILENT = "silent"  # a worker does not answer any more
BLIND = "blind"  # JAX does not see the chips of a worker
BUSY = "busy"  # another program holds the chips of a worker
UNREADY = "unready"  # the slice is not ready any more, and may be again
UNREACHED = "unreached"  # it is ready, and its workers cannot be used
UNMOUNTED = "unmounted"  # a worker cannot mount the disk
SHUT = "shut"  # a worker cannot use a folder of the run
TAKEN = "taken"  # another slice runs in the workdir
DELETED = "deleted"  # the slice does not exist, and not by us
HELD = "held"  # somebody stopped the slice
STOPPED = "stopped"  # somebody stopped the run
HOURS = "hours"  # --max-hours are over

# Before the run began, by the state of the slice.
_UNBEGUN = {
  "dead": GONE,
  "absent": DELETED,
  "held": HELD,
  "ready": UNREACHED,
}
_NO_FAULT = ("75", GONE, BUSY, UNREADY)
_BY_THE_SLICE = (STUCK, SILENT, BLIND)
_ENDS = (UNREACHED, UNMOUNTED, SHUT, TAKEN, DELETED, HELD, STOPPED, HOURS)
_WORDS = (GONE, BUSY, UNREADY, *_BY_THE_SLICE, *_ENDS)


def is_outcome(event: str) -> bool:
  """Whether the workers said so, by their exit codes."""
  return event not in _WORDS


def unbegun(slice_: str) -> str:
  """How an attempt has ended whose workers could not be set up or started.

  Args:
    slice_: its state after that, see `states.Slice`.
  """
  return _UNBEGUN.get(slice_, UNREADY)


@dataclasses.dataclass(frozen=True)
class Limits:
  """How long what may last, in seconds; see `settings.Pace`."""

  straggler: float
  silent: float
  stuck: float
  between_looks: float  # a longer gap was ours, as when a laptop sleeps


@dataclasses.dataclass(frozen=True)
class Look:
  """What was found at one moment of an attempt.

  Attributes:
    slice: state of the slice, see `states.Slice`.
    run: what its workers said; None when they were not asked.
    life: see `Workdir.sign_of_life`; None when unknown or not asked.
    now: of a clock that only goes forward, seconds.
    overtime: whether the deadline has passed.
  """

  slice: str
  run: Run | None
  life: str | None
  now: float
  overtime: bool = False


@dataclasses.dataclass(frozen=True)
class Watch:
  """What is remembered from look to look: for how many seconds something lasts.

  None stands for what was not so at the last look.

  Attributes:
    at: when the last look was, of the looks' clock.
    mixed: some workers have ended and others not.
    silent: a worker does not answer, while Google does.
    lifeless: one does not, and `life` has not changed.
    stuck: the slice is in such a state.
    life: of the last look.
  """

  at: float | None = None
  mixed: float | None = None
  silent: float | None = None
  lifeless: float | None = None
  stuck: float | None = None
  life: str | None = None


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


def judge(watch: Watch, look: Look, limits: Limits) -> tuple[Watch, Verdict]:
  """Decides after one look, and says what to remember.

  Only time between two looks that both saw it counts, and of a long gap only
  what looks need: a laptop that slept must not find a worker that was silent
  for hours. A silent worker is lost when nothing shows that the run goes on
  either; if the workdir cannot be read from here, others must have answered, or
  else it may be our own network that is broken.
  """
  gap = min(look.now - watch.at, limits.between_looks) if watch.at else 0.0
  run = look.run
  silent = run is not None and run.silent > 0
  mixed = run is not None and run.status == "mixed"
  unchanged = watch.lifeless if look.life == watch.life else None
  after = Watch(
    at=look.now,
    mixed=_longer(watch.mixed, gap, mixed),
    silent=_longer(watch.silent, gap, silent),
    lifeless=_longer(unchanged, gap, silent),
    stuck=_longer(watch.stuck, gap, look.slice == "waiting"),
    life=look.life,
  )
  return after, _verdict(after, look, limits)


def _longer(before: float | None, gap: float, lasts: bool) -> float | None:
  """For how long something has lasted now; None when it does not."""
  if not lasts:
    return None
  return 0.0 if before is None else before + gap


def _over(lasted: float | None, limit: float) -> bool:
  return lasted is not None and lasted >= limit


def _verdict(watch: Watch, look: Look, limits: Limits) -> Verdict:
  run = look.run
  ended = {"dead": GONE, "absent": DELETED, "held": HELD}.get(look.slice, "")
  if ended:
    return Verdict(ended)
  if run is not None and run.status == "exited":
    outcome = outcome_of(run.codes)
    # Worker 0 ends the run when the hours are over.
    return Verdict(HOURS if look.overtime and outcome == "75" else outcome)
  if run is not None and run.status in ("stopped", "absent"):
    # A worker that was replaced has no run.
    return Verdict(STOPPED if run.status == "stopped" else "75")
  if look.overtime:
    return Verdict(HOURS)
  if look.slice == "waiting":
    return Verdict(STUCK if _over(watch.stuck, limits.stuck) else "")
  if run is None:
    return Verdict()
  if _over(watch.mixed, limits.straggler):
    # Some have ended and some have not. That is usual for a moment; if it
    # lasts, they hang. Those that are silent cannot be told to end.
    if not _over(watch.silent, limits.straggler):
      return Verdict(halt=True)
    return Verdict("2" if "2" in run.codes else SILENT)
  if _over(watch.silent, limits.silent):
    dead = look.life is not None and _over(watch.lifeless, limits.silent)
    if dead or (look.life is None and run.answered):
      return Verdict(SILENT)
  return Verdict()


@dataclasses.dataclass(frozen=True)
class History:
  """What is remembered from attempt to attempt.

  Attributes:
    newest: label of the newest checkpoint that was ever seen, -1 for none.
    fruitless: how many attempts in a row ended without a newer one.
    faults: how many attempts on this slice ended by no preemption.
  """

  newest: int = -1
  fruitless: int = 0
  faults: int = 0


@dataclasses.dataclass(frozen=True)
class Next:
  """What follows an attempt that is not done.

  Attributes:
    give_up: whether it is the last.
    remake: whether the slice is deleted and made anew before the next one.
  """

  give_up: bool = False
  remake: bool = False


def with_progress(history: History, newest: int | None) -> History:
  """What to remember once a checkpoint was seen; None for unknown."""
  if newest is None or newest <= history.newest:
    return history
  return dataclasses.replace(history, newest=newest, fruitless=0)


def after(
  history: History, event: str, newest: int | None, max_restarts: int
) -> tuple[History, Next]:
  """Decides what follows, and says what to remember.

  Every attempt without a newer checkpoint counts, however it ended. A second
  fault is likely one of the machines, which a new slice cures.

  Args:
    history: of the attempts before.
    event: how this one ended.
    newest: label of the newest checkpoint now; None if unknown.
    max_restarts: in a row without a newer checkpoint.
  """
  progress = with_progress(history, newest)
  fruitless = 0 if progress.newest > history.newest else history.fruitless + 1
  faults = history.faults + (event not in _NO_FAULT)
  next_ = Next(
    give_up=fruitless > max_restarts,
    remake=event in _BY_THE_SLICE or faults >= 2,
  )
  if next_.remake or event == GONE:
    faults = 0
  return History(progress.newest, fruitless, faults), next_
