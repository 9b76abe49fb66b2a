"""`byol evaluate`: evaluates an encoder by the protocol of a config."""

import argparse
import contextlib
import os
import sys
from typing import Any

from byol_flax.commands import config_bounds, config_file, together
from input_pipeline.errors import UsageError

# JAX is imported within the functions, so that SIGTERM has a handler before.


_KEEP_NOTHING = ("few_label", "knn")


def run(options: argparse.Namespace, config: Any, sigterms: list[int]) -> int:
  """Evaluates, and writes what was found and all that it depends on.

  The result is `result.json` in the evaluation's own workdir. Without --encoder
  the workdir is a run's: its newest checkpoint is evaluated, and the result is
  `summary.json` in that workdir. Only protocols that keep nothing may do that.
  """
  with (
    together.started(options, config, sigterms) as (processes, index),
    contextlib.ExitStack() as stack,
  ):
    from etils import epath

    from byol_flax import sharding
    from byol_flax.evaluation import encoder, protocols

    nowhere = stack.enter_context(open(os.devnull, "w"))
    mesh = sharding.make_mesh()
    session = protocols.Session(
      encoder=encoder.open_encoder(
        options.encoder or options.workdir, mesh, read_config=read_run_config
      ),
      mesh=mesh,
      processes=processes,
      out=nowhere if index else sys.stdout,
      console=nowhere if index else sys.stderr,
    )
    workdir = options.workdir
    if options.encoder is None:
      if config.get("protocol") not in _KEEP_NOTHING:
        raise UsageError(
          "Only few_label and knn write into the folder of a run; what others "
          "keep would be taken for that of another checkpoint. Give "
          f"--encoder={workdir} and a --workdir of its own."
        )
      path = str(epath.Path(workdir, "summary.json"))
      protocols.write(session, config, workdir, path)
    elif "suite" in config:
      from byol_flax.evaluation import suite

      flag = config_file.of_suite(config.suite, options.encoder)
      shipped = config_file.load_config([flag])
      suite.run(
        session,
        config.suite,
        config_bounds.parts_of(config),
        config_bounds.parts_of(shipped),
        workdir,
      )
    else:
      protocols.evaluate(session, config, workdir, again=True)
  return 0


def read_run_config(text: str) -> Any:
  """The CONFIG of --encoder=random:CONFIG."""
  config = config_file.load_config([f"--config={text}"])
  if config_bounds.evaluates(config):
    raise UsageError(
      f"--encoder=random:{text}: expected a config of pre-training, such as "
      "configs/byol_digits.py, but this is one of an evaluation."
    )
  return config
