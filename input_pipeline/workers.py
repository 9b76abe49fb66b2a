"""The processes that read and augment, from their first moment on."""

import os
import signal

from input_pipeline import handover, image_ops, parents

# A preemption and Ctrl-C signal the whole process group, and so does a terminal
# that closes. The trainer decides when to stop, and closes its workers itself;
# a worker that dies first would take it down before the last save
# (tpu_practice 3.5).
UNHEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def start(
  slots: handover.Address, worker_index: int, worker_count: int
) -> None:
  """Set-up of a Grain worker process, which hands over in `slots`."""
  del worker_count
  for number in UNHEARD:
    signal.signal(number, signal.SIG_IGN)
  os.environ["JAX_PLATFORMS"] = "cpu"  # workers must never take the device
  parents.end_with_parent()
  handover.attach(slots, worker_index)
  image_ops.compile_all()  # while the trainer compiles its first update
