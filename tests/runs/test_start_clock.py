"""Where the time of a start goes."""

import subprocess
import sys
import time

import pytest

from byol_flax.runs import start_clock
from tests import trainers


def test_stages_add_up(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(start_clock.time, "monotonic", lambda: now[0])
  clock = start_clock.StartClock(93.0)
  clock.end("import")
  now[0] += 0.2
  metrics = clock.finish()
  assert clock.seconds["import"] == pytest.approx(7)
  assert clock.seconds["run"] == pytest.approx(0.2)
  total = metrics.pop("time/first_step_seconds")
  assert total == pytest.approx(sum(metrics.values()))
  assert list(metrics) == [
    "time/first_step_import_seconds",
    "time/first_step_run_seconds",
  ]
  assert clock.sentence().endswith(
    f"after {total:.1f} s: import {clock.seconds['import']:.1f}, "
    f"run {clock.seconds['run']:.1f}"
  )


def test_a_process_began_before_its_first_line():
  script = (
    "import time; time.sleep(1)\n"
    "from byol_flax.runs import start_clock\n"
    "clock = start_clock.StartClock.of_process()\n"
    "clock.end('import'); print(clock.seconds['import'])"
  )
  begun = time.monotonic()
  done = subprocess.run(
    [sys.executable, "-c", script],
    cwd=trainers.ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert 0.95 < float(done.stdout) < time.monotonic() - begun + 0.05
