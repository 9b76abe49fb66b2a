"""Measures where the time goes until the first update is done."""

import os
import time
from typing import Self


class StartClock:
  """Measures the stages of a start, one after another.

  Pre-training has these stages: "import" until the program and the devices are
  there, "staging" if shards are copied, "data" until the images are open,
  "state" until the weights are there, then "trace" and "compile" for the step,
  and "run" for the first update.

  Attributes:
    seconds: of each stage that has ended.
    last: when the last of them ended, in seconds of `time.monotonic`.
  """

  def __init__(self, began: float) -> None:
    """Begins the first stage at `began`, in seconds of `time.monotonic`."""
    self.seconds: dict[str, float] = {}
    self.last = began

  @classmethod
  def of_process(cls) -> Self:
    """Begins when this process did, if Linux tells that, else now."""
    now = time.monotonic()
    try:
      with open("/proc/self/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
      return cls(now)
    after_boot = ticks / os.sysconf("SC_CLK_TCK")
    return cls(now - (time.clock_gettime(time.CLOCK_BOOTTIME) - after_boot))

  def end(self, stage: str) -> None:
    """Ends a stage and begins the next."""
    now = time.monotonic()
    self.seconds[stage] = now - self.last
    self.last = now

  def finish(self) -> dict[str, float]:
    """Ends "run", the last stage; returns all stages as metrics."""
    self.end("run")
    parts = {
      f"time/first_step_{stage}_seconds": seconds
      for stage, seconds in self.seconds.items()
    }
    return {"time/first_step_seconds": sum(self.seconds.values()), **parts}

  def sentence(self) -> str:
    """Tells it: "first update done after 9.1 s: import 3.0, compile 6.1"."""
    parts = [f"{stage} {x:.1f}" for stage, x in self.seconds.items()]
    total = sum(self.seconds.values())
    return f"first update done after {total:.1f} s: {', '.join(parts)}"
