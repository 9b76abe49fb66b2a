"""Opponents for `byol benchmark step`; light, since a process imports them."""

import os
import signal
import time


def sleeps(config, batch, num_classes):
  """20 ms an update."""
  assert (batch, num_classes) == ({"view1": [0]}, 10)
  return lambda: time.sleep(0.02)


def waits(config, batch, num_classes):
  """20 ms an update, whatever it is given."""
  return lambda: time.sleep(0.02)


def hangs(config, batch, num_classes):
  return lambda: time.sleep(100)


def dies(config, batch, num_classes):
  """As the kernel ends a process that takes too much memory, in update 2."""
  updates = iter([lambda: None, lambda: os.kill(os.getpid(), signal.SIGKILL)])
  return lambda: next(updates)()


def wants_too_much(config, batch, num_classes):
  raise MemoryError("CUDA out of memory.\nOf 80 GiB none is left.")
