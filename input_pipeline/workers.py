"""Sets up the worker processes, which read and augment."""

import os
import signal

from input_pipeline import handover, image_ops, parents

# A preemption, Ctrl-C and a terminal that closes signal the whole process
# group. The trainer decides when to stop, and closes its workers itself. If a
# worker died first, the trainer would fail before its last save (tpu_practice
# 3.5).
UNHEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def start(
  slots: handover.Address, worker_index: int, worker_count: int
) -> None:
  """Sets up a Grain worker process, which hands chunks over in `slots`."""
  del worker_count
  for number in UNHEARD:
    signal.signal(number, signal.SIG_IGN)
  os.environ["JAX_PLATFORMS"] = "cpu"  # workers must never take the device
  parents.end_with_parent()
  handover.attach(slots, worker_index)
  image_ops.compile_all()  # while the trainer compiles its first update
