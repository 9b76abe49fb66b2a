"""Measures where the time of one attempt goes.

An attempt is one start of the program, until it ends or is killed. It has a
line in `starts.jsonl`, which a thread writes anew every ten seconds, or every
minute in a bucket, and so does each save before the checkpoint exists. So at
most that much of a killed attempt's time is not known. It counts as
restarting, and its updates count as never made.
"""

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

from etils import epath

from byol_flax.runs import buckets, goodput
from byol_flax.runs.goodput import SPANS, UPDATES
from byol_flax.runs.start_clock import StartClock
from input_pipeline import whole_files

_LOCAL, _BUCKET = 10.0, 60.0  # seconds between two times that a line is written


@dataclasses.dataclass(frozen=True)
class Sums:
  """What was spent so far.

  Attributes:
    seconds: span -> how long.
    images: of `UPDATES` -> how many.
  """

  seconds: Mapping[str, float]
  images: Mapping[str, int]


class Attempt:
  """What this attempt spends; keeps its line in `starts.jsonl`.

  It is used as a context, whose end writes the line for the last time.

  Args:
    workdir: of the run, local or gs://.
    step: completed updates of the restored checkpoint, 0 for a new run.
    batch_size: images of an update.
    about: what else the line holds.
    start_clock: when the attempt began, and its stages so far.
    writes: whether this process writes, true on process 0 only.
  """

  def __init__(
    self,
    workdir: str,
    *,
    step: int,
    batch_size: int,
    about: Mapping[str, Any],
    start_clock: StartClock,
    writes: bool,
  ) -> None:
    self._path = epath.Path(workdir, goodput.FILE) if writes else None
    self._before = goodput.lines_of(self._path) if self._path else []
    told = map(goodput.parsed, self._before)
    self._reached = max((line.get("reached", 0) for line in told), default=0)
    self._batch_size = batch_size
    self._seconds = dict.fromkeys(SPANS, 0.0)
    self._seconds["starting"] = sum(start_clock.seconds.values())
    self._images = dict.fromkeys(UPDATES, 0)
    self._doing, self._since = "starting", start_clock.last
    now = time.time()
    age = time.monotonic() - self._since + self._seconds["starting"]
    self._line = {"step": step, "wall_time": now, **about}
    self._line |= {"began": now - age, "reached": step}
    self._changing, self._writing = threading.Lock(), threading.Lock()
    self._ended = threading.Event()
    self._thread = threading.Thread(
      target=self._write_by_time, name=f"writes {goodput.FILE}", daemon=True
    )

  @contextlib.contextmanager
  def on(self, span: str) -> Iterator[None]:
    """Within the block, time belongs to `span`."""
    before = self._switch(span)
    try:
      yield
    finally:
      self._switch(before)

  @contextlib.contextmanager
  def update(self, step: int, *, compiles: bool) -> Iterator[None]:
    """Within the block, update `step` is made.

    What follows the block belongs to the update too, because devices may still
    be at work. So does the block, unless it `compiles`.
    """
    span = "repeating" if step <= self._reached else "updating"
    self._switch("compiling" if compiles else span)
    yield
    self._switch(span)
    with self._changing:
      self._images[span] += self._batch_size
      self._line["reached"] = step

  def end(self) -> None:
    """Says that no update follows."""
    self._switch("starting")

  def sums(self) -> Sums:
    """What this attempt has spent until now."""
    with self._changing:
      seconds = dict(self._seconds)
      seconds[self._doing] += time.monotonic() - self._since
      return Sums(seconds, dict(self._images))

  def totals(self) -> goodput.Totals:
    """What all attempts have spent until now."""
    before = map(goodput.parsed, self._before)
    return goodput.totals([*before, self._told()])

  def write(self) -> None:
    """Writes the line of this attempt, after those of the earlier ones."""
    if self._path:
      with self._writing:
        lines = [*self._before, json.dumps(self._told()).encode(), b""]
        whole_files.write_bytes(self._path, b"\n".join(lines))

  def __enter__(self) -> Self:
    self.write()
    self._thread.start()
    return self

  def __exit__(self, *exception: object) -> None:
    self._ended.set()
    self._thread.join()
    self.write()

  def _switch(self, span: str) -> str:
    """From now on, time belongs to `span`; returns what it belonged to."""
    with self._changing:
      now = time.monotonic()
      self._seconds[self._doing] += now - self._since
      before, self._doing, self._since = self._doing, span, now
      return before

  def _told(self) -> dict[str, Any]:
    """The line as it is now."""
    sums = self.sums()
    return {**self._line, **dataclasses.asdict(sums)}

  def _write_by_time(self) -> None:
    bucket = buckets.holds(str(self._path), buckets.mounts())
    while not self._ended.wait(_BUCKET if bucket else _LOCAL):
      # What cannot be written now is written the next time; a save or the end
      # raises the error.
      with contextlib.suppress(Exception):
        self.write()
