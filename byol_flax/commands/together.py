"""Begins a command that several processes run together."""

import argparse
import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from byol_flax.runs import interrupts

# JAX is imported within the functions, so that SIGTERM has a handler before.


def keep_sigterms() -> list[int]:
  """Notes every SIGTERM from now on until JAX listens, some seconds later.

  Returns:
    The signals that came, for `distributed.start` to hand on to JAX.
  """
  sigterms: list[int] = []
  signal.signal(signal.SIGTERM, lambda number, _: sigterms.append(number))
  interrupts.terminate_on_hangup()
  return sigterms


@contextlib.contextmanager
def started(
  options: argparse.Namespace, config: Any, sigterms: list[int]
) -> Iterator[tuple[Any, int]]:
  """Gathers all processes and opens the devices.

  Args:
    options: of the command; all processes must have the same, except for their
      numbers.
    config: has `deadlines`; must be the same on all.
    sigterms: from `keep_sigterms`.

  Yields:
    `distributed.Processes`, and the number of this process.
  """
  from byol_flax.runs import compilation, distributed
  from byol_flax.runs.peers import watch

  compilation.keep_programs(options.compilation_cache)
  cluster = distributed.find_cluster(
    options.coordinator, options.process_count, options.process_index
  )
  # The processes compare this, so that all of them do the same. How each one
  # finds the others, and where it keeps programs, is its own affair.
  own = ("coordinator", "process_index", "compilation_cache")
  said = {
    **{name: x for name, x in vars(options).items() if name not in own},
    "config": config.to_json(),
  }
  with distributed.start(
    cluster,
    watch.Deadlines(**config.deadlines),
    identity=str(sorted(said.items())),
    sigterms=sigterms,
  ) as processes:
    # Imported only now, so that a signal meets JAX's handler soon.
    from byol_flax.runs import devices

    devices.open_devices()
    yield processes, cluster.index
