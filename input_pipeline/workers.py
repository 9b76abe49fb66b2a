"""The processes that read and augment, from their first moment on."""

import contextlib
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker

from input_pipeline import handover, image_ops, parents


@contextlib.contextmanager
def born_deaf() -> Iterator[None]:
  """Processes started within do not hear SIGTERM before `start`.

  They inherit the mask of signals from the thread that starts them. In this
  process other threads go on hearing it, JAX's among them.
  """
  # Python's own helper process: to start it later would end the blocking.
  resource_tracker.ensure_running()
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(
  slots: handover.Address, worker_index: int, worker_count: int
) -> None:
  """Set-up of a Grain worker process, which hands over in `slots`."""
  del worker_count
  # A preemption signals the whole process group. The trainer decides when to
  # stop, and closes its workers itself; a worker that dies first would take it
  # down before the last save (tpu_practice 3.5).
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  os.environ["JAX_PLATFORMS"] = "cpu"  # workers must never take the device
  parents.end_with_parent()
  handover.attach(slots, worker_index)
  image_ops.compile_all()  # while the trainer compiles its first update
