"""`byol train` to which something happens at a given place: mostly SIGTERM.

Command: python -m tests.signal_at ... --at=STEP:ACTIVITY, with an activity of
`peers.ACTIVITIES`, --at=STEP:saved, after the first save from that update on,
or --at=start, before the processes gather. The signal and the trainer are real;
only the moment is arranged. With
--at=unreadable the process cannot read checkpoints, and with --at=late it comes
some seconds after the others.
"""

import os
import signal
import sys
import time

from byol_flax import main


def terminate_and_wait():
  """SIGTERM to this process; returns when all processes have heard of it.

  By the counters from which JAX's service then agrees on the place of the end,
  xla/pjrt/distributed/preemption/preemption_sync_manager.cc.
  """
  import jax
  from jax._src import distributed

  client = distributed.global_state.client
  os.kill(os.getpid(), signal.SIGTERM)
  until = time.monotonic() + 120
  counters = "PREEMPTION_CURRENT_COUNTER/"
  while len(client.key_value_dir_get(counters)) < jax.process_count():
    assert time.monotonic() < until, "no process was told of the SIGTERM"
    time.sleep(0.05)
  time.sleep(1)  # so that each has counted the others, too


def arrange(place):
  from byol_flax.runs import checkpoint, distributed

  if place == "start":
    find = distributed.find_cluster

    def find_cluster(*given):
      os.kill(os.getpid(), signal.SIGTERM)
      return find(*given)

    distributed.find_cluster = find_cluster
    return
  if place == "late":
    time.sleep(4)
    return
  if place == "unreadable":

    def refuse(*_):
      raise OSError("Permission denied")

    checkpoint.Checkpoints.record = refuse
    return
  if place.endswith(":saved"):
    save = checkpoint.Checkpoints.save
    struck = []

    def save_and_signal(self, step, *given):
      save(self, step, *given)
      if step >= int(place.removesuffix(":saved")) and not struck:
        struck.append(step)
        terminate_and_wait()

    checkpoint.Checkpoints.save = save_and_signal
    return
  step, activity = place.split(":")
  said = distributed.Processes.at

  def at(self, *position):
    said(self, *position)
    if position == (int(step), activity):
      terminate_and_wait()

  distributed.Processes.at = at


if __name__ == "__main__":
  places = [flag for flag in sys.argv if flag.startswith("--at=")]
  for flag in places:
    sys.argv.remove(flag)
    place = flag.removeprefix("--at=")
    arrange(place)
  main.run()
