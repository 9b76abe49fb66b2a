"""`byol train`: gathers the processes of a run and lets them pre-train."""

import argparse
import os
import sys
from typing import Any

from byol_flax.commands import together
from input_pipeline import full_disk

# JAX is imported within the functions, so that SIGTERM has a handler before.


def run(options: argparse.Namespace, config: Any, sigterms: list[int]) -> int:
  """Pre-trains in `options.workdir`, and evaluates on the way."""
  workdir = options.workdir
  with (
    # Of several processes only the first tells how the run goes.
    open(os.devnull, "w") as nowhere,
    together.started(options, config, sigterms) as (processes, index),
  ):
    from byol_flax.evaluation import online
    from byol_flax.pretrain import attempts
    from byol_flax.runs import start_clock
    from byol_flax.runs import workdir as workdir_lib

    with (
      full_disk.told(
        workdir, lambda: workdir_lib.way_on(workdir, options.restart)
      ),
      workdir_lib.taken(workdir, processes),
    ):
      attempts.run(
        config,
        workdir,
        restart=options.restart,
        begins_with=_begins_with(options),
        open_evaluation=online.open_evaluation,
        processes=processes,
        start_clock=start_clock.StartClock.of_process(),
        stream=nowhere if index else sys.stderr,
      )
  return 0


def _begins_with(options: argparse.Namespace) -> Any:
  """Where the first weights come from; None if they are random."""
  from byol_flax.pretrain import origin

  for takes, flag in origin.FLAGS.items():
    given = vars(options)[flag.removeprefix("--").replace("-", "_")]
    if given is not None:
      return origin.parse(given, takes)
  return None
