"""`byol features`: representations of any images, in one file."""

import argparse
import contextlib
import os
import sys
from typing import Any

from byol_flax.commands import config_file, libraries, together
from byol_flax.commands.command_line import SHIPPED_CONFIGS
from byol_flax.commands.evaluate import read_run_config
from input_pipeline.errors import UsageError

# JAX is imported within the functions, so that SIGTERM has a handler before.


def run(options: argparse.Namespace) -> int:
  """Computes what is missing, and writes the file."""
  sigterms = together.keep_sigterms()
  libraries.settle()
  if options.encoder is None:
    raise UsageError(
      "`byol features` needs --encoder=ENCODER, such as the workdir of a run."
    )
  config = _config(options)
  with (
    together.started(options, config, sigterms) as (processes, index),
    contextlib.ExitStack() as stack,
  ):
    from byol_flax import sharding
    from byol_flax.evaluation import (
      encoder,
      extraction,
      feature_files,
      held_out,
      protocol,
    )

    feature_files.check_ending(options.out)
    if index == 0:
      feature_files.check(options.out)
    # Before any weights are read or drawn.
    of_encoder = encoder.config_of(options.encoder, read_run_config)
    name, folder = protocol.data_of(config, of_encoder)
    source = held_out.open_split(name, options.split, folder)
    nowhere = stack.enter_context(open(os.devnull, "w"))
    out = nowhere if index else sys.stdout
    mesh = sharding.make_mesh()
    setting = protocol.Setting(
      config=config,
      encoder=encoder.open_encoder(
        options.encoder, mesh, read_config=read_run_config
      ),
      workdir="",
      mesh=mesh,
      processes=processes,
      tell=lambda line: print(line, file=out, flush=True),
      console=nowhere if index else sys.stderr,
    )
    extraction.run(setting, source, options.out)
  return 0


def _config(options: argparse.Namespace) -> Any:
  """The settings of an evaluation that reads images once, as this one does.

  So what has no flag here is what it is there.
  """
  changes: dict[str, Any] = {
    "data_name": options.data,
    "batch_size": options.batch_size,
    "num_workers": options.num_workers,
  }
  if options.data_dir:
    changes["data_dir"] = options.data_dir
  return config_file.load_config(
    [
      f"--config={os.path.join(SHIPPED_CONFIGS, 'knn.py')}",
      *(f"--config.{name}={value}" for name, value in changes.items()),
    ]
  )
