"""`byol train`: gathers the processes of a run and lets them pre-train."""

import argparse
import os
import signal
import sys
from typing import Any

from byol_flax.runs import interrupts
from input_pipeline import full_disk

# JAX is imported within the functions: SIGTERM must meet a handler before.


def keep_sigterms() -> list[int]:
  """Keeps every SIGTERM from now on until JAX listens, some seconds later.

  Returns:
    The signals that came, for `distributed.start` to hand on to JAX.
  """
  sigterms: list[int] = []
  signal.signal(signal.SIGTERM, lambda number, _: sigterms.append(number))
  interrupts.terminate_on_hangup()
  return sigterms


def run(options: argparse.Namespace, config: Any, sigterms: list[int]) -> int:
  """Pre-trains in `options.workdir`, and evaluates on the way."""
  from byol_flax.runs import compilation, distributed
  from byol_flax.runs.peers import watch

  compilation.keep_programs(options.compilation_cache)
  cluster = distributed.find_cluster(
    options.coordinator, options.process_count, options.process_index
  )
  workdir = options.workdir
  # The processes of a run compare it, so that all of them train the same.
  identity = " ".join(
    str(said)
    for said in (
      config.to_json(),
      workdir,
      options.restart,
      options.init,
      options.init_encoder,
    )
  )
  # One voice: of several processes the first one tells how it goes.
  with (
    open(os.devnull, "w") as nowhere,
    distributed.start(
      cluster,
      watch.Deadlines(**config.deadlines),
      identity=identity,
      sigterms=sigterms,
    ) as processes,
  ):
    # The rest is imported only now, so that a signal meets JAX's handler soon.
    from byol_flax.runs import devices

    devices.open_devices()
    from byol_flax.evaluation import online
    from byol_flax.pretrain import train
    from byol_flax.runs import start_clock
    from byol_flax.runs import workdir as workdir_lib

    with (
      full_disk.told(
        workdir, lambda: workdir_lib.way_on(workdir, options.restart)
      ),
      workdir_lib.taken(workdir),
    ):
      train.train(
        config,
        workdir,
        restart=options.restart,
        begins_with=_begins_with(options),
        open_evaluation=online.open_evaluation,
        processes=processes,
        start_clock=start_clock.StartClock.of_process(),
        stream=nowhere if cluster.index else sys.stderr,
      )
  return 0


def _begins_with(options: argparse.Namespace) -> Any:
  """Where the first weights come from, None if they are drawn."""
  from byol_flax.pretrain import origin

  if options.init is not None:
    return origin.parse(options.init, False)
  if options.init_encoder is not None:
    return origin.parse(options.init_encoder, True)
  return None
