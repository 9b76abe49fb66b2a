"""The line on the console that tells how far a run is."""

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from typing import TextIO


class Progress:
  """The console line of a run.

  On a terminal one line is rewritten in place. Anywhere else, where that would
  fill a log, plain lines appear: the first, the last, and between them at most
  one every `every_seconds`.

  Args:
    total_steps: the step at which the run ends.
    batch_size: global, images per step.
    stream: where the line goes, standard error unless given.
    clock: seconds from any origin.
    every_seconds: shortest time between two plain lines.
  """

  def __init__(
    self,
    *,
    total_steps: int,
    batch_size: int,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    every_seconds: float = 30.0,
  ):
    self._total_steps = total_steps
    self._batch_size = batch_size
    self._stream = sys.stderr if stream is None else stream
    self._clock = clock
    self._every_seconds = every_seconds
    self._in_place = self._stream.isatty()
    self._line = ""  # what stands on the terminal now
    self._noted: set[str] = set()
    self._next_time = -math.inf

  def update(
    self,
    step: int,
    *,
    headline: tuple[str, float],
    images_per_second: float,
    data_wait_fraction: float,
  ) -> None:
    """Shows that `step` updates are done.

    Args:
      step: how many.
      headline: a label and the value that matters most.
      images_per_second: since the last call.
      data_wait_fraction: share of the time since then that the devices waited
        for data, in [0, 1].
    """
    remaining = (self._total_steps - step) * self._batch_size
    eta = remaining / images_per_second if images_per_second else math.nan
    digits = 0 if images_per_second >= 10 else 1
    line = " | ".join(
      (
        f"step {step:,}/{self._total_steps:,} "
        f"{100 * step // self._total_steps:>2}%",
        f"{images_per_second:,.{digits}f} images/s",
        f"ETA {human_duration(eta)}",
        "{} {:.3f}".format(*headline),
        f"data wait {data_wait_fraction:.0%}",
      )
    )
    if self._in_place:
      self._redraw(line)
    elif step >= self._total_steps or self._clock() >= self._next_time:
      self._next_time = self._clock() + self._every_seconds
      self._write(line + "\n")

  def note(self, text: str) -> None:
    """Prints `text` on a line of its own, above the line in place."""
    self._write(self._over(text) + "\n")
    if self._line:
      self._write(self._line)

  def notes(self, texts: Iterable[str]) -> None:
    """Prints each text that is not empty, see `note`."""
    for text in filter(None, texts):
      self.note(text)

  def note_once(self, topic: str, text: str) -> None:
    """Prints `text`, unless something on this topic was printed before."""
    if topic not in self._noted:
      self._noted.add(topic)
      self.note(text)

  def close(self) -> None:
    """Ends the line in place, so that what follows starts on a new one."""
    if self._line:
      self._line = ""
      self._write("\n")

  def _redraw(self, line: str) -> None:
    """Puts `line` in place of the line shown."""
    # A line that wraps cannot be rewritten: `\r` goes back one row only.
    line = line[: shutil.get_terminal_size().columns - 1]
    self._write(self._over(line))
    self._line = line

  def _over(self, text: str) -> str:
    """`text`, made to cover the line shown, if there is one."""
    return ("\r" + text.ljust(len(self._line))) if self._in_place else text

  def _write(self, text: str) -> None:
    self._stream.write(text)
    self._stream.flush()


def human_duration(seconds: float) -> str:
  """Two units at most: "12s", "3m 40s", "5h 02m", "3d 04h"; "?" if unknown."""
  if not math.isfinite(seconds):
    return "?"
  minutes, second = divmod(round(seconds), 60)
  hours, minute = divmod(minutes, 60)
  days, hour = divmod(hours, 24)
  if days:
    return f"{days}d {hour:02d}h"
  if hours:
    return f"{hours}h {minute:02d}m"
  if minutes:
    return f"{minutes}m {second:02d}s"
  return f"{second}s"
