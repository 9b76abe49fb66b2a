"""Trains, and a second time from a healthy checkpoint if the network collapses.

`roll_back` finds that checkpoint and says what the second attempt changes.
"""

import time
from typing import Any

from byol_flax.pretrain import roll_back, train
from byol_flax.runs import interrupts
from byol_flax.runs.distributed import Processes
from byol_flax.runs.start_clock import StartClock


def run(
  config: Any,
  workdir: str,
  *,
  restart: bool,
  processes: Processes,
  start_clock: StartClock,
  **known: Any,
) -> None:
  """Calls `train.train`, and once more each time that it goes back.

  That is at most once in the life of a run, see `roll_back.go_back`.

  Args:
    config: as made by configs/byol.py; `watchdog` says what to do.
    workdir: of the run.
    restart: whether to set an existing run aside and begin anew.
    processes: all that take part; each calls this with the same arguments.
    start_clock: tells where the time goes until the first update is done.
    **known: the other arguments of `train.train`.

  Raises:
    RunError: the network has collapsed, and the config wants no way back or
      there is none.
  """
  rolled_back = None
  while True:
    try:
      train.train(
        config,
        workdir,
        restart=restart,
        processes=processes,
        start_clock=start_clock,
        just_rolled_back=rolled_back,
        **known,
      )
      return
    except roll_back.CollapsedError as error:
      alarm = error.alarm
    # Here the exception is gone, and with it the arrays of the failed attempt.
    rolled_back = roll_back.go_back(alarm, config, workdir, processes)
    interrupts.hand_on(False)  # nothing is unsaved
    restart, start_clock = False, StartClock(time.monotonic())
