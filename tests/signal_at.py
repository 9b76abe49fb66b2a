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
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(3)  # the notice comes before the next look

    checkpoint.Checkpoints.save = save_and_signal
    return
  step, activity = place.split(":")
  said = distributed.Processes.at

  def at(self, *position):
    said(self, *position)
    if position == (int(step), activity):
      os.kill(os.getpid(), signal.SIGTERM)
      if activity == "waiting for input":
        time.sleep(4)  # idle for longer than the notice takes

  distributed.Processes.at = at


if __name__ == "__main__":
  places = [flag for flag in sys.argv if flag.startswith("--at=")]
  for flag in places:
    sys.argv.remove(flag)
    place = flag.removeprefix("--at=")
    arrange(place)
  main.run()
